"""hack/rbac.py: the roles grant the recorded calls and no more, and these are few enough.

Whether the record is what the code asks for, tests/integration/test_rights.py tells.
"""

from collections.abc import Iterable

import pytest
import yaml

import rbac
from testbed.bed import ROLES

COSI = "objectstorage.k8s.io"
# The least common set of real drivers' charts: what the sidecar may use, whatever its role allows.
LEAST = {
    *(
        f"{verb} {COSI}/{resource}"
        for resource in (
            "buckets", "buckets/status", "bucketclaims", "bucketclaims/status",
            "bucketaccesses", "bucketaccesses/status", "bucketaccessclasses",
        )
        for verb in ("get", "list", "watch", "update", "create", "delete")
    ),
    *(f"{verb} core/secrets" for verb in ("get", "create", "update", "delete")),
    *(f"{verb} core/events" for verb in ("create", "update")),
    *(f"{verb} coordination.k8s.io/leases" for verb in ("get", "create", "update")),
}  # fmt: skip


def granted(rules: Iterable[dict[str, list[str]]]) -> list[str]:
    """All calls that rules allow, sorted; what two of them allow is in it twice."""
    return sorted(
        f"{verb} {group or 'core'}/{resource}"
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def test_resources_with_equal_verbs_are_in_one_rule() -> None:
    calls = [
        "watch example.com/apples",
        "list example.com/apples",
        "list example.com/pears",
        "watch example.com/pears",
        "update example.com/pears/status",
        "list core/pods",
        "watch core/pods",
    ]
    made = yaml.safe_load(rbac.rules(calls))
    assert made == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["example.com"],
            "resources": ["apples", "pears"],
            "verbs": ["list", "watch"],
        },
        {"apiGroups": ["example.com"], "resources": ["pears/status"], "verbs": ["update"]},
    ]
    assert granted(made) == sorted(calls)
    assert rbac.rules(calls) == rbac.rules(list(reversed(calls)))


def test_what_is_not_plain_is_explained_at_its_rule() -> None:
    made = rbac.rules(["create core/events", "update core/events"])
    assert made.splitlines()[0] == "  # update: a repetition increases the count"
    assert "#" not in rbac.rules(["create core/events"])


def test_every_explanation_is_of_a_recorded_call() -> None:
    assert rbac.WHY.keys() <= {call for calls in rbac.recorded().values() for call in calls}


@pytest.mark.parametrize("role", ROLES)
def test_a_manifest_grants_the_recorded_calls_those_of_leases_in_its_own_namespace(
    role: str,
) -> None:
    by_kind = {
        document["kind"]: granted(document["rules"])
        for document in yaml.safe_load_all(ROLES[role].read_text())
        if "rules" in document
    }
    leases = [call for call in rbac.recorded()[role] if "leases" in call]
    assert by_kind["Role"] == leases
    assert sorted(by_kind["ClusterRole"] + leases) == rbac.recorded()[role]


def test_only_the_rules_of_a_manifest_are_made() -> None:
    there = ROLES["sidecar"].read_text()
    emptied = rbac.with_rules(there, lambda _: "  []\n")
    assert len(emptied.splitlines()) < len(there.splitlines())
    assert rbac.made(emptied, rbac.recorded()["sidecar"]) == there


def test_the_sidecar_uses_no_more_than_what_all_drivers_charts_grant() -> None:
    assert set(rbac.recorded()["sidecar"]) <= LEAST


@pytest.mark.parametrize("role", ROLES)
def test_nobody_patches_lists_secrets_or_uses_a_wildcard(role: str) -> None:
    calls = set(rbac.recorded()[role])
    assert not [call for call in calls if "*" in call or call.startswith(("patch", "deletecoll"))]
    assert not calls & {"list core/secrets", "watch core/secrets"}
    assert role == "sidecar" or not [call for call in calls if "secrets" in call]
