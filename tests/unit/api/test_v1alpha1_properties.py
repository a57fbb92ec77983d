"""Whatever stands on the wire of v1alpha1: read or refused, and written as it is read."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.v1alpha1 import (
    DECODERS,
    NULL_META,
    NULL_SPEC,
    NULL_STATUS,
    WITH_STATUS,
    Json,
    annotated,
    decode,
    encode,
    whole,
)

from cosi_operator.api import view
from cosi_operator.api.encode import annotate_status, with_plain_status, with_status
from cosi_operator.api.resources import STATUS_ANNOTATION
from cosi_operator.outcome import Effect

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
count = st.integers(min_value=0, max_value=2**62)
conditions = st.lists(
    st.builds(view.Condition, text, text, text, text, count, text), max_size=3
).map(tuple)
last_calls = st.builds(
    view.LastCall,
    text,
    text,
    text,
    text,
    st.sampled_from(Effect),
    text,
    count,
    count,
    text,
    text,
    text,
    text,
)
statuses = st.builds(
    view.Status,
    conditions,
    count,
    st.booleans(),
    *[text, text, text],
    st.none() | last_calls,
)


def assert_told(found: Any, status: view.Status) -> None:
    assert found.conditions == status.conditions
    assert found.observed_generation == status.observed_generation
    if not isinstance(found, view.BucketClaim):
        # These objects have no UID, so a verdict that names one is another object's.
        call = status.last_call
        assert found.last_call == (None if call and call.object_uid else call)


@pytest.mark.parametrize("kind", WITH_STATUS)
@given(status=statuses)
def test_what_is_written_into_a_status_is_read_back(kind: str, status: view.Status) -> None:
    found = decode(with_status(whole(kind), status))
    assert_told(found, status)
    if isinstance(found, view.BucketClaim):
        assert (found.ready, found.bucket_name) == (status.ready, status.bucket_name)
    elif isinstance(found, view.Bucket):
        assert (found.ready, found.bucket_id) == (status.ready, status.bucket_id)
    else:
        assert (found.granted, found.account_id) == (status.ready, status.account_id)


@pytest.mark.parametrize("kind", WITH_STATUS)
@given(status=statuses)
def test_what_is_written_into_the_annotation_is_read_back(kind: str, status: view.Status) -> None:
    body = with_plain_status(whole(kind), status)
    annotate_status(body, status)
    assert_told(decode(body), status)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def fields_of(names: Json) -> st.SearchStrategy[Json]:
    return st.dictionaries(st.sampled_from(sorted(names)), anything, max_size=4)


own_json = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["conditions", "observedGeneration", "lastCall"], anything)
)
skeletons = st.fixed_dictionaries(
    {
        "metadata": st.builds(
            lambda meta, text: {
                **meta,
                "name": "one",
                "annotations": {STATUS_ANNOTATION: text},
            },
            fields_of(NULL_META),
            text | own_json.map(json.dumps),
        )
    },
    optional={
        "spec": fields_of(NULL_SPEC) | anything,
        "status": fields_of(NULL_STATUS) | anything,
        "driverName": anything,
        "parameters": anything,
        "deletionPolicy": anything,
    },
)


@pytest.mark.parametrize("kind", DECODERS)
@given(body=skeletons)
def test_any_object_is_read_or_refused_and_nothing_else(kind: str, body: Json) -> None:
    try:
        found = DECODERS[kind](encode(body))
    except msgspec.ValidationError:
        return
    assert found.meta.name == "one"


@pytest.mark.parametrize("kind", WITH_STATUS)
@given(own=own_json)
def test_no_part_of_ours_makes_an_object_unreadable(kind: str, own: Json) -> None:
    assert decode(whole(kind, status=own)).meta.name == "one"
    assert decode(annotated(kind, json.dumps(own))).meta.name == "one"
