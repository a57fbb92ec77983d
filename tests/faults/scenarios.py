"""The scenarios of the fault tests: what is there before, what a user then does, when it is over.

Each case of a scenario has a class of its own with the case's name among the parameters, so that
every driver call tells which case it is about.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tests.faults.bed import DRIVER_NAME, NEW_ACCOUNT, NEW_KEYS, REFUSED, FaultBed, Json
from tests.faults.state import Case

from testbed import access_body, claim_body


class Scenario(ABC):
    """One way of using the operator, repeatable for many cases at once."""

    name: str
    slug: str
    policy = "Delete"
    verdict = ""

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        """Make what has to be there before; by default the classes only."""
        self.make_classes(bed, cases)

    @abstractmethod
    def act(self, bed: FaultBed, case: Case) -> None:
        """What the user does."""

    def make_classes(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        """A BucketClass and a BucketAccessClass for each case."""
        bodies: list[Json] = [
            {
                "metadata": {"name": case.name},
                "driverName": DRIVER_NAME,
                "parameters": {
                    "case": case.name,
                    **({"verdict": self.verdict} if self.verdict else {}),
                },
            }
            for case in cases
        ]
        bed.create_all("bucketclasses", [{**b, "deletionPolicy": self.policy} for b in bodies])
        bed.create_all("bucketaccessclasses", [{**b, "authenticationType": "Key"} for b in bodies])

    def make_claims(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        """A ready claim for each case."""
        self.make_classes(bed, cases)
        names = [case.name for case in cases]
        bed.create_all("bucketclaims", [claim_body(name, class_name=name) for name in names])
        bed.until_ready("bucketclaims", names, timeout_s=60)
        _learn(bed, "bucketclaims", cases)

    def make_accesses(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        """A ready claim with a granted access for each case."""
        self.make_claims(bed, cases)
        names = [case.name for case in cases]
        bed.create_all("bucketaccesses", [access_body(name, class_name=name) for name in names])
        bed.until_ready("bucketaccesses", names, timeout_s=60)
        _learn(bed, "bucketaccesses", cases)


def _learn(bed: FaultBed, plural: str, cases: Sequence[Case]) -> None:
    found = {body["metadata"]["name"]: body for body in bed.all_of(plural)}
    for case in cases:
        case.learn(plural, found[case.name])


class Create(Scenario):
    name = "create"
    slug = "new"

    def act(self, bed: FaultBed, case: Case) -> None:
        body = claim_body(case.name, class_name=case.name)
        case.learn("bucketclaims", bed.create("bucketclaims", body))


class FailingCreate(Scenario):
    """The driver refuses the bucket for good: asked once, told once, then silence."""

    name = "failing create"
    slug = "bad"
    verdict = REFUSED

    def act(self, bed: FaultBed, case: Case) -> None:
        body = claim_body(case.name, class_name=case.name)
        case.learn("bucketclaims", bed.create("bucketclaims", body))


class Bind(Scenario):
    """A Bucket that an administrator made is bound to a claim that names it."""

    name = "static bind"
    slug = "old"
    policy = "Retain"

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_classes(bed, cases)
        bodies: list[Json] = [
            {
                "metadata": {"name": case.name},
                "spec": {
                    "bucketClaim": {},
                    "bucketClassName": case.name,
                    "driverName": DRIVER_NAME,
                    "protocols": ["S3"],
                    "existingBucketID": f"old-{case.name}",
                    "deletionPolicy": "Retain",
                },
            }
            for case in cases
        ]
        bed.create_all("buckets", bodies)
        wanted = {case.name for case in cases}
        bed.until(
            "the Buckets to be ready",
            lambda: (
                wanted
                <= {
                    b["metadata"]["name"]
                    for b in bed.all_of("buckets")
                    if b.get("status", {}).get("bucketReady")
                }
            ),
        )

    def act(self, bed: FaultBed, case: Case) -> None:
        body = claim_body(case.name, existing=case.name)
        case.learn("bucketclaims", bed.create("bucketclaims", body))


class Grant(Scenario):
    name = "grant"
    slug = "grant"

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_claims(bed, cases)

    def act(self, bed: FaultBed, case: Case) -> None:
        body = access_body(case.name, class_name=case.name)
        case.learn("bucketaccesses", bed.create("bucketaccesses", body))


class Revoke(Scenario):
    name = "revoke"
    slug = "revoke"

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_accesses(bed, cases)

    def act(self, bed: FaultBed, case: Case) -> None:
        bed.delete("bucketaccesses", case.name)


class Rotate(Scenario):
    """The keys of an access are replaced, by a driver that replaces the keys of the account."""

    name = "rotate, new keys"
    slug = "turn"
    verdict = NEW_KEYS

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_accesses(bed, cases)

    def act(self, bed: FaultBed, case: Case) -> None:
        bed.annotate("bucketaccesses", case.name, rotate="1")


class RotateAccount(Rotate):
    """The same by a driver that makes one more account each time."""

    name = "rotate, new account"
    slug = "renew"
    verdict = NEW_ACCOUNT


class Delete(Scenario):
    """The claim goes, and with it the bucket and its data."""

    name = "delete, policy Delete"
    slug = "del"

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_claims(bed, cases)

    def act(self, bed: FaultBed, case: Case) -> None:
        bed.delete("bucketclaims", case.name)


class Retain(Delete):
    name = "delete, policy Retain"
    slug = "keep"
    policy = "Retain"


class DeleteGranted(Delete):
    """The claim goes while an access to it is still there: that one goes first."""

    name = "delete with an access"
    slug = "both"

    def prepare(self, bed: FaultBed, cases: Sequence[Case]) -> None:
        self.make_accesses(bed, cases)


SCENARIOS: tuple[Scenario, ...] = (
    Create(),
    FailingCreate(),
    Bind(),
    Grant(),
    Revoke(),
    Rotate(),
    RotateAccount(),
    Delete(),
    Retain(),
    DeleteGranted(),
)
