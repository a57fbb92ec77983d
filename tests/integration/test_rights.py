"""What the two processes ask the API server for, and that they are granted this and no more.

Both live through all that users do, with our CRDs and with upstream's. What only a race brings
about is brought about by a proxy: the first update of each kind meets a conflict. So each run asks
for the same, which is the record in hack/calls.json; `hack/update-rbac` makes that with this run.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.bed import FaultBed
from tests.faults.fault import Fault, How

import rbac
from cosi_operator.outcome import Call
from testbed import Testbed, access_body, claim_body
from testbed.bed import DRIVER_NAME, ROLES
from testbed.objects import Json

UPSTREAM_CRDS = Path(__file__).parents[1] / "support" / "upstream_crds"
STATUS_ANNOTATION = "cosi.objectstorage.k8s.io/status"


@pytest.fixture(scope="module")
def lived() -> Iterator[FaultBed]:
    """After all that users do, with our CRDs."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        FaultBed.ready(Path(directory)) as bed,
    ):
        for role in ROLES:
            for plural in ("bucketclaims", "bucketaccesses", "buckets"):
                first_update_conflicts(bed, role, plural)
        bed.make_classes("plain")
        delete_a_claim_with_its_access(bed)
        delete_a_static_claim_with_its_access(bed)
        repair_a_class(bed)
        name_what_does_not_exist(bed)
        bed.until_quiet()  # a request is in the audit log a moment after its answer
        yield bed


@pytest.fixture(scope="module")
def lived_upstream() -> Iterator[Testbed]:
    """With upstream's CRDs, which drop conditions: an annotation has them."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), crds=UPSTREAM_CRDS) as bed,
    ):
        bed.make_classes("plain")
        delete_a_claim_with_its_access(bed)
        bed.create("bucketaccesses", access_body("no-class", class_name="absent"))
        bed.until(
            "the annotation",
            lambda: (
                STATUS_ANNOTATION
                in bed.get("bucketaccesses", "no-class")["metadata"].get("annotations", {})
            ),
        )
        bed.until_quiet()
        yield bed


def first_update_conflicts(bed: FaultBed, role: str, plural: str) -> None:
    bed.proxy.arm(
        Fault(
            How.CONFLICT,
            lambda asked: (asked.role, asked.verb, asked.plural) == (role, "update", plural),
        )
    )


def delete_a_claim_with_its_access(bed: Testbed) -> None:
    """The sidecar deletes the access; before, it raises the count of a failure's Event."""
    match = {"parameters.case": "slow"}
    bed.make_classes("slow", parameters={"case": "slow"})
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="INTERNAL", times=2)
    bed.make_claims(["dynamic"], class_name="slow")
    bed.make_accesses(["dynamic"], class_name="slow")
    bed.until_ready("bucketaccesses", ["dynamic"])
    bed.delete("bucketclaims", "dynamic")
    bed.until_gone("bucketclaims", ["dynamic"])


def delete_a_static_claim_with_its_access(bed: Testbed) -> None:
    """The controller deletes the access, since the Bucket stays."""
    bed.create("buckets", static_bucket("old"))
    bed.create("bucketclaims", claim_body("static", existing="old"))
    bed.until_ready("bucketclaims", ["static"])
    # The mock driver has no such bucket, but would make the account.
    bed.driver.set_rule(Call.GRANT_ACCESS, match={"bucket_id": "old"}, code="INTERNAL")
    bed.create("bucketaccesses", access_body("static", class_name="plain"))
    bed.until_reason("bucketaccesses", "static", "DriverInternal")
    bed.driver.clear_rules()
    bed.delete("bucketclaims", "static")
    bed.until_gone("bucketclaims", ["static"])


def repair_a_class(bed: Testbed) -> None:
    """The controller carries it over to the Bucket."""
    bed.make_classes("wrong", parameters={"case": "wrong"})
    match = {"parameters.case": "wrong"}
    bed.driver.set_rule(Call.CREATE_BUCKET, match=match, code="INVALID_ARGUMENT")
    bed.make_claims(["repaired"], class_name="wrong")
    bed.until_reason("bucketclaims", "repaired", "DriverInvalidArgument")
    bed.edit("bucketclasses", "wrong", lambda body: body.update(parameters={"case": "right"}))
    bed.until_ready("bucketclaims", ["repaired"])


def name_what_does_not_exist(bed: Testbed) -> None:
    """The controller tells it; a second time it raises the count of the Event."""
    bed.create("bucketaccesses", access_body("no-class", class_name="absent"))
    bed.until_reason("bucketaccesses", "no-class", "BucketAccessClassNotFound")
    bed.create("bucketclaims", claim_body("classless", class_name="absent"))
    bed.until_reason("bucketclaims", "classless", "BucketClassNotFound")
    bed.create("bucketclaims", claim_body("early", existing="late"))
    bed.until_reason("bucketclaims", "early", "BucketNotFound")
    bed.create("buckets", static_bucket("late", reserved_for="another"))
    bed.until_reason("bucketclaims", "early", "BucketAlreadyBound")
    bed.delete("buckets", "late")
    bed.until("an Event twice", lambda: any(e["count"] == 2 for e in bed.events("early")))


def static_bucket(name: str, *, reserved_for: str = "") -> Json:
    spec = {
        "bucketClaim": {"namespace": "team", "name": reserved_for} if reserved_for else {},
        "bucketClassName": "plain",
        "driverName": DRIVER_NAME,
        "protocols": ["S3"],
        "existingBucketID": name,
        "deletionPolicy": "Retain",
    }
    return {"metadata": {"name": name}, "spec": spec}


# hack/update-rbac runs these two: under roles that allow everything, they hold too.
def test_no_request_is_forbidden(lived: FaultBed) -> None:
    assert lived.forbidden() == []


def test_no_request_is_forbidden_with_upstreams_crds(lived_upstream: Testbed) -> None:
    assert lived_upstream.forbidden() == []


@pytest.mark.parametrize("role", ROLES)
def test_a_process_asks_for_what_is_recorded_and_for_nothing_else(
    lived: FaultBed, lived_upstream: Testbed, role: str
) -> None:
    asked = rbac.calls_of(lived, role) | rbac.calls_of(lived_upstream, role)
    assert sorted(asked) == rbac.recorded()[role], "run hack/update-rbac"
