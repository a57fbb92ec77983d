"""Cases of failure: each has a class of its own, whose parameter `case` is the case's name.

A driver gets that parameter with every call, so a rule can be made for one case alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cosi_operator.outcome import Call
from mockdriver.journal import Entry
from testbed import Testbed, access_body, condition

FIELDS = {
    Call.CREATE_BUCKET: "parameters.case",
    Call.DELETE_BUCKET: "delete_context.case",
    Call.GRANT_ACCESS: "parameters.case",
    Call.REVOKE_ACCESS: "revoke_access_context.case",
}
ABOUT_ACCESS = (Call.GRANT_ACCESS, Call.REVOKE_ACCESS)
DELETIONS = (Call.DELETE_BUCKET, Call.REVOKE_ACCESS)


def misbehave(bed: Testbed, name: str, call: Call, **rule: Any) -> None:
    """Have the driver do this wrong in this case."""
    bed.driver.set_rule(call, match={FIELDS[call]: name}, **rule)


def prepare(bed: Testbed, cases: Mapping[str, Call]) -> None:
    """Make, for each case's name, all that has to stand before its call and what makes it due."""
    for name in cases:
        bed.make_classes(name, parameters={"case": name})
        bed.make_claims([name], class_name=name)
    bed.create_all(
        "bucketaccesses",
        [access_body(n, class_name=n) for n, call in cases.items() if call in ABOUT_ACCESS],
    )
    deleted = {
        "bucketclaims": [n for n, call in cases.items() if call is Call.DELETE_BUCKET],
        "bucketaccesses": [n for n, call in cases.items() if call is Call.REVOKE_ACCESS],
    }
    for plural, names in deleted.items():
        bed.until_ready(plural, names)
        bed.delete_all(plural, names)


def plural_of(call: Call) -> str:
    """The kind that tells a tenant how this call went."""
    return "bucketaccesses" if call in ABOUT_ACCESS else "bucketclaims"


def subject(bed: Testbed, name: str, call: Call) -> dict[str, Any]:
    """The object that tells a tenant how the call went; {} when it is gone."""
    return bed.find(plural_of(call), name) or {}


def until_told(bed: Testbed, reasons: Mapping[str, tuple[Call, str]]) -> None:
    """Wait until each case's Ready condition has its reason; all are looked at together."""

    def untold() -> list[str]:
        found = {
            plural: {item["metadata"]["name"]: item for item in bed.all_of(plural)}
            for plural in {plural_of(call) for call, _ in reasons.values()}
        }
        return [
            name
            for name, (call, reason) in reasons.items()
            if condition(found[plural_of(call)].get(name)).get("reason") != reason
        ]

    bed.until(f"all of {sorted(reasons)} to be told", lambda: not untold())


def calls_of(bed: Testbed, name: str, call: Call | None = None) -> list[Entry]:
    """What the driver was asked in this case, since its process began."""
    return [e for e in bed.driver.journal(call) if name in e.fields.values()]


def until_nothing_is_left(bed: Testbed, names: Iterable[str]) -> None:
    """The objects, their Secrets, and on the backend their buckets and accounts."""
    wanted = set(names)
    bed.until_gone("bucketclaims", wanted)
    bed.until_gone("bucketaccesses", wanted)
    bed.until(
        "the Buckets to be gone",
        lambda: wanted.isdisjoint(
            bucket["spec"]["bucketClaim"].get("name") for bucket in bed.all_of("buckets")
        ),
    )
    assert not [s for s in bed.all_of("secrets") if s["metadata"]["name"][:-5] in wanted]
    kept = {b.bucket_id for b in bed.driver.buckets() if b.parameters.get("case") in wanted}
    assert kept == set()
    known = {b.bucket_id for b in bed.driver.buckets()}
    assert [a for a in bed.driver.accounts() if a.bucket_id not in known] == []
