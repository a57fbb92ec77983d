"""What one tenant, class or driver call does must not delay the objects of another."""

import time

import pytest

from cosi_operator.outcome import Call
from testbed import Testbed

REFUSED = 60
SOON_S = 5.0


@pytest.mark.attack("the driver refuses 60 claims of one tenant; another tenant's claim is ready")
def test_refused_claims_of_one_tenant_do_not_delay_another(bed: Testbed, name: str) -> None:
    bad, other = f"{name}-bad", bed.make_namespace(f"{name}-other")
    bed.make_classes(bad, parameters={"tier": bad})
    bed.make_classes(name)
    bed.driver.set_rule(
        Call.CREATE_BUCKET, match={"parameters.tier": bad}, code="INVALID_ARGUMENT", delay_s=0.1
    )
    bed.make_claims([f"{name}-{number}" for number in range(REFUSED)], class_name=bad)
    started = time.monotonic()
    bed.make_claims([name], class_name=name, namespace=other)
    bed.until_ready("bucketclaims", [name], other)
    assert time.monotonic() - started < SOON_S
