"""What drivers, servers and tenants write reaches people without keys and without control codes."""

import json
from typing import Any

import pytest
from tests.support.encodings import ACCESS_KEYS, SECRET_KEYS, around, encodings, leaks

from cosi_operator.outcome import Call
from testbed import Testbed

type Json = dict[str, Any]
KEY, SECRET = ACCESS_KEYS[1], SECRET_KEYS[1]


def until_events(bed: Testbed, bucket: str) -> list[Json]:
    """The Events about a Bucket; those about cluster objects are in the namespace default."""
    bed.until(f"Events about {bucket}", lambda: bed.events(bucket, "default"))
    return bed.events(bucket, "default")


@pytest.mark.attack("a driver repeats a key, encoded, in lower case or in pieces; nobody reads it")
def test_no_key_of_a_refusal_is_seen_anywhere(bed: Testbed, name: str) -> None:
    texts = [text for _, text in (*encodings(SECRET), *around(KEY, SECRET))]
    claims = {f"{name}-{i}": text for i, text in enumerate(texts)}
    for claim, text in claims.items():
        bed.make_classes(claim, parameters={"tier": claim})
        bed.driver.set_rule(
            Call.CREATE_BUCKET,
            match={"parameters.tier": claim},
            code="INVALID_ARGUMENT",
            message=f"cannot use {text} for it",
        )
        bed.make_claims([claim], class_name=claim)
    for claim in claims:
        bed.until_reason("bucketclaims", claim, "DriverInvalidArgument")
    for claim, text in claims.items():
        bucket = bed.bucket_of(claim)
        events = until_events(bed, bucket["metadata"]["name"])
        for seen in (bed.get("bucketclaims", claim)["status"], bucket["status"], events):
            shown = json.dumps(seen, ensure_ascii=False)
            assert "cannot use" in shown
            assert not leaks(shown, SECRET), text
    for role in bed.processes:
        assert not leaks(bed.log_of(role), SECRET)


@pytest.mark.attack("control and direction-turning characters in names and messages are escapes")
def test_control_characters_of_a_driver_never_reach_a_terminal(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"tier": name})
    bed.driver.set_rule(
        Call.CREATE_BUCKET,
        match={"parameters.tier": name},
        code="INVALID_ARGUMENT",
        message="no go\x1b]0;owned\x07ld\u202e\u200b",
    )
    bed.make_claims([name], class_name=name)
    seen = bed.until_reason("bucketclaims", name, "DriverInvalidArgument")
    assert r"go\x1b]0;owned\x07ld\u202e\u200b" in seen["message"]
    assert seen["message"].isprintable()
    events = until_events(bed, bed.bucket_of(name)["metadata"]["name"])
    assert all(event["message"].isprintable() for event in events)
