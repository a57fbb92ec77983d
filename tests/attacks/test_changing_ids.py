"""A driver that returns another bucket id at each Create: one is kept, and only that is deleted."""

import pytest

from cosi_operator.outcome import Call
from testbed import Testbed
from testbed.objects import Json


def returns(bed: Testbed, name: str, bucket_id: str, **rule: str) -> None:
    bed.driver.set_rule(
        Call.CREATE_BUCKET,
        match={"parameters.tier": name},
        reply_fields={"bucket_id": bucket_id},
        **rule,
    )


def status_of(bed: Testbed, name: str) -> Json:
    found: Json = bed.bucket_of(name)["status"]
    return found


@pytest.mark.attack("the driver returns another bucket id at each Create")
@pytest.mark.timeout(120)
def test_the_stored_id_is_kept_and_nothing_else_is_deleted(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"tier": name})
    returns(bed, name, f"{name}-first", die="after")  # its reply is lost
    bed.make_claims([name], class_name=name)
    bed.driver.wait_until_dead()
    bed.driver.run()
    returns(bed, name, f"{name}-second")
    bed.until_ready("bucketclaims", [name], timeout_s=60)
    assert status_of(bed, name)["bucketID"] == f"{name}-second"

    returns(bed, name, f"{name}-third")
    bed.annotate("bucketclaims", name, retry="now")
    bed.restart("sidecar")
    bed.until_quiet()
    assert status_of(bed, name)["bucketID"] == f"{name}-second"
    assert asked(bed, Call.CREATE_BUCKET, "name", bed.bucket_of(name)["metadata"]["name"]) == 1

    bed.delete("bucketclaims", name)
    bed.until_gone("bucketclaims", [name])
    assert asked(bed, Call.DELETE_BUCKET, "bucket_id", f"{name}-second") == 1
    for other in ("first", "third"):
        assert asked(bed, Call.DELETE_BUCKET, "bucket_id", f"{name}-{other}") == 0


def asked(bed: Testbed, call: Call, field: str, value: str) -> int:
    """How often the driver's present process was asked about this."""
    return sum(entry.fields.get(field) == value for entry in bed.driver.journal(call))
