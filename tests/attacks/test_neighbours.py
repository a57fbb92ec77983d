"""What one tenant, class or driver call does must not delay the objects of another.

The sidecar has 120 workers: 60 for a class, 50 for a namespace, 40 for both together. Times depend
on the machine, so that most of these tests compare orders: how far was the crowd when the neighbour
was ready?
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cosi_operator.fairness import Shares
from cosi_operator.outcome import Call
from cosi_operator.settings import SidecarSettings
from testbed import NAMESPACE, Testbed, access_body, claim_body, condition

WORKERS = SidecarSettings(kubeconfig=None, namespace="cosi", identity="s").workers
SHARES = Shares.of(WORKERS)
REFUSED = 60
SOON_S = 5.0
CROWD, CALL_S = 200, 4.0
# First come, first served: the neighbour's call comes after all that were there before it.
PASSED_AT_MOST = CROWD // 4


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


@pytest.mark.attack("one tenant queues 200 claims at a slow driver; another's claim has its turn")
@pytest.mark.timeout(120)
def test_a_crowd_of_one_tenant_does_not_delay_another(bed: Testbed, name: str) -> None:
    other = bed.make_namespace(f"{name}-other")
    bed.make_classes(name, parameters={"tier": name})
    bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.tier": name}, delay_s=CALL_S)
    crowd = [f"{name}-{number}" for number in range(CROWD)]
    with gone_afterwards(bed, crowd):
        bed.make_claims(crowd, class_name=name)
        before = len(calls_of(bed, name))
        assert before < CROWD - 2 * PASSED_AT_MOST, "too slow a machine: no crowd waits any more"
        bed.make_claims([name], class_name=name, namespace=other)
        bed.until_ready("bucketclaims", [name], other)
        bucket = bed.bucket_of(name, other)["metadata"]["name"]
        assert calls_of(bed, name).index(bucket) - before < PASSED_AT_MOST


@pytest.mark.attack("the driver returns to 120 claims of one tenant; another's is among the first")
@pytest.mark.timeout(120)
def test_a_crowd_that_waited_for_the_driver_does_not_delay_another(bed: Testbed, name: str) -> None:
    other = bed.make_namespace(f"{name}-other")
    bed.make_classes(name, parameters={"tier": name})
    bed.driver.stop()
    crowd = [f"{name}-{number}" for number in range(WORKERS)]
    with gone_afterwards(bed, crowd):
        bed.make_claims(crowd, class_name=name)
        bed.until(
            "all of the crowd to wait",
            lambda: sum(waits_for_driver(claim) for claim in bed.all_of("bucketclaims")) == WORKERS,
            timeout_s=60,
        )
        bed.make_claims([name], class_name=name, namespace=other)
        bed.until_reason("bucketclaims", name, "WaitingForDriver", other)
        bed.driver.run()
        bed.until_ready("bucketclaims", [name], other)
        bucket = bed.bucket_of(name, other)["metadata"]["name"]
        assert calls_of(bed, name).index(bucket) < 10


@pytest.mark.attack("the calls of one class hang; the claims of other classes are ready")
@pytest.mark.timeout(120)
def test_a_class_whose_calls_hang_does_not_delay_another_class(bed: Testbed, name: str) -> None:
    hangs, other = f"{name}-hangs", bed.make_namespace(f"{name}-other")
    bed.make_classes(hangs, parameters={"tier": hangs})
    bed.make_classes(name)
    spaces = [bed.make_namespace(f"{name}-{number}") for number in range(3)]
    bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.tier": hangs}, hang=True)
    crowd = [f"{hangs}-{number}" for number in range(WORKERS // 3)]  # as many claims as workers
    with gone_afterwards(bed, crowd, *spaces):
        for space in spaces:
            bed.make_claims(crowd, class_name=hangs, namespace=space)
        until_hanging(bed, hangs, int(SHARES.class_name))
        for space in (other, spaces[0]):
            bed.make_claims([name], class_name=name, namespace=space)
            bed.until_ready("bucketclaims", [name], space, timeout_s=30)
        assert len(calls_of(bed, hangs)) == SHARES.class_name


@pytest.mark.attack("one tenant's calls hang; the claims of others in the same class are ready")
@pytest.mark.timeout(120)
def test_a_tenant_whose_calls_hang_does_not_delay_others_of_the_class(
    bed: Testbed, name: str
) -> None:
    other = bed.make_namespace(f"{name}-other")
    bed.make_classes(name, parameters={"tier": name})
    bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.tier": name}, hang=True)
    crowd = [f"{name}-{number}" for number in range(WORKERS)]
    with gone_afterwards(bed, crowd):
        bed.make_claims(crowd, class_name=name)
        until_hanging(bed, name, int(SHARES.line))
        bed.driver.clear_rules()  # those that hang go on hanging
        bed.make_claims([name], class_name=name, namespace=other)
        bed.until_ready("bucketclaims", [name], other, timeout_s=30)
        made = [b for b in bed.driver.buckets() if b.parameters.get("tier") == name]
        assert len(made) == 1


@pytest.mark.attack("600 claims and accesses name made-up classes; a neighbour is ready")
@pytest.mark.timeout(120)
def test_many_classes_that_do_not_exist_do_not_delay_another(bed: Testbed, name: str) -> None:
    """Names of classes are groups of the queue, so made-up ones could make its turns slow."""
    crowd = bed.make_namespace(f"{name}-crowd")
    other = bed.make_namespace(f"{name}-other")
    bed.make_classes(name)
    count = range(300)
    bed.create_all(
        "bucketclaims",
        [claim_body(f"c-{i}", class_name=f"{name}-{i}", namespace=crowd) for i in count],
        crowd,
    )
    bed.create_all(
        "bucketaccesses",
        [access_body(f"c-{i}", class_name=f"{name}-{i}", namespace=crowd) for i in count],
        crowd,
    )
    started = time.monotonic()
    bed.make_claims([name], class_name=name, namespace=other)
    bed.make_accesses([name], class_name=name, namespace=other)
    bed.until_ready("bucketaccesses", [name], other)
    assert time.monotonic() - started < SOON_S
    for plural in ("bucketclaims", "bucketaccesses"):
        bed.delete_all(plural, [f"c-{i}" for i in count], crowd)
        bed.until_gone(plural, [f"c-{i}" for i in count], crowd)


def waits_for_driver(claim: dict[str, Any]) -> bool:
    return bool(condition(claim).get("reason") == "WaitingForDriver")


def calls_of(bed: Testbed, tier: str) -> list[str]:
    """The Buckets of a class whose Create calls have begun, in order."""
    entries = bed.driver.journal(Call.CREATE_BUCKET)
    return [e.fields["name"] for e in entries if e.fields.get("parameters.tier") == tier]


def until_hanging(bed: Testbed, tier: str, count: int) -> None:
    """Wait until so many calls of a class hang."""
    bed.until(f"{count} calls to hang", lambda: len(calls_of(bed, tier)) >= count)


@contextmanager
def gone_afterwards(bed: Testbed, claims: list[str], *spaces: str) -> Iterator[None]:
    """Delete the crowd afterwards, and wait until it is gone."""
    try:
        yield
    finally:
        bed.driver.restart()  # ends what hangs, and forgets the rules
        for space in spaces or (NAMESPACE,):
            bed.delete_all("bucketclaims", claims, space)
        for space in spaces or (NAMESPACE,):
            bed.until_gone("bucketclaims", claims, space, timeout_s=90)
