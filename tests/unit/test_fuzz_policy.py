"""Whatever stands in a policy file or an override: a policy, or a PolicyError that can be read."""

import json
from contextlib import suppress

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosi_operator.classify import CONSERVATIVE, Policy, PolicyError, parse_override
from cosi_operator.outcome import Call
from cosi_operator.policy_file import resolve_policy

WORDS = (
    "profile", "overrides", "drivers", "csi-like", "conservative", "INTERNAL=requeue", "*", "null",
    "d.example.com", "*:UNKNOWN=terminal", "DriverCreateBucket:ABORTED=requeue", "OK=requeue", "",
    "d/INTERNAL=success", "=", ":", "/", "a/b/c:d:e=f=g", "\u2028", "\x00", "\ud800", "﻿", "on",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
SCALARS = st.one_of(
    TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.just(2**70)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries(
    {}, optional={"profile": TREES, "overrides": TREES, "drivers": TREES}
)
YAML_PIECES = (
    "a: &x [*x]\n", "? {a: b}\n: c\n", "<<: *x\n", "!!python/object:os.system 'x'\n", "- - - -\n",
    "profile: !!binary aGk=\n", "--- \n---\n", "%YAML 9.9\n", "overrides: [", "\t",
    "drivers:\n  d:\n",
    "profile: |\n  csi-like\n", "{profile: csi-like}", "# only words\n", "profile: 2026-01-01\n",
    "a: 1\na: 2\n", "\x85", "&a &b c", "'", '"\\x', "drivers: {? : }\n", "[" * 80,
)  # fmt: skip


def check(text: str, overrides: tuple[str, ...] = (), driver: str = "d.example.com") -> None:
    """Either a whole policy, or an error with the file's name and words for a person."""
    words = "p"
    try:
        assert_whole(
            resolve_policy(driver, overrides=overrides, file_text=text, file_name="p.yaml")
        )
    except PolicyError as error:
        words = str(error)
    assert words.strip()
    assert "\n" not in words


def assert_whole(policy: Policy) -> None:
    for code in CONSERVATIVE:
        for call in Call:
            assert policy.verdict(call, code)


@given(tree=st.one_of(TREES, FIELDS))
@settings(max_examples=500, derandomize=True, deadline=None)
def test_any_tree_is_a_policy_or_a_policy_error(tree: object) -> None:
    with suppress(UnicodeEncodeError, ValueError):  # a tree that has no such form at all
        check(json.dumps(tree))
        check(json.dumps(tree, ensure_ascii=False, indent="\t"))
        check(yaml.safe_dump(tree, allow_unicode=True))


@given(pieces=st.lists(st.one_of(st.sampled_from(YAML_PIECES), st.text(max_size=15)), max_size=6))
@example(pieces=["a: &a [*a]"])
@example(pieces=["[" * 3000])
@example(pieces=["a: &a ['x','x']\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"])
@settings(max_examples=700, derandomize=True, deadline=None)
def test_any_text_is_a_policy_or_a_policy_error(pieces: list[str]) -> None:
    check("".join(pieces))


@given(text=st.one_of(TEXTS, st.lists(TEXTS, max_size=4).map("".join)))
@settings(max_examples=700, derandomize=True, deadline=None)
def test_any_override_is_one_or_a_policy_error(text: str) -> None:
    with suppress(PolicyError):
        parse_override(text)
    check("", overrides=(text,))
