"""How long a neighbour waits beside a crowd, and beside calls that hang."""

import time
from dataclasses import dataclass

from bench.load import run
from bench.world import FIFO_WORKERS, Pair, World, world
from cosi_operator.outcome import Call
from testbed import NAMESPACE, claim_body
from testbed.objects import path_of, typed

HANGS = "hangs"
NEIGHBOUR = "neighbour"
ASKED = 5
LOOK_S = 0.005
WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Of one claim: seconds until the driver was called for it, and until it was ready."""

    begun_s: float
    ready_s: float


def fairness(pair: Pair, crowd: int, hanging: int) -> dict[str, object]:
    """A neighbour's wait: alone, beside a crowd of another tenant, beside a class that hangs.

    For ours, the same again with one queue for all, first come, first served.
    """
    found: dict[str, object] = {
        "count": crowd,
        "hanging": hanging,
        **_measure(pair, crowd, hanging),
    }
    if pair.is_ours:
        found["fifo"] = _measure(pair, crowd, hanging, fifo=True)
        found["fifo_workers"] = FIFO_WORKERS
    return found


def _measure(pair: Pair, crowd: int, hanging: int, *, fifo: bool = False) -> dict[str, object]:
    asked = 1 if fifo else ASKED
    with world(pair) as found:
        found.fifo = fifo
        found.bed.make_namespace(NEIGHBOUR)
        found.start()
        found.until_idle()
        alone = [_claim(found, f"alone{number}") for number in range(ASKED)]
        _send(found, [f"crowd{number}" for number in range(crowd)], "gold")
        waiting = crowd - found.bed.driver.calls(Call.CREATE_BUCKET) + ASKED
        beside_crowd = [_claim(found, f"beside{number}") for number in range(asked)]
    with world(pair) as found:
        found.fifo = fifo
        found.bed.make_namespace(NEIGHBOUR)
        found.bed.make_classes(HANGS, parameters={"tier": HANGS})
        found.bed.driver.set_rule(Call.CREATE_BUCKET, match={"parameters.tier": HANGS}, hang=True)
        found.start()
        found.until_idle()
        _send(found, [f"hangs{number}" for number in range(hanging)], HANGS)
        found.until_idle()
        beside_hanging = [_claim(found, f"beside{number}") for number in range(asked)]
    return {
        "alone": _longest(alone),
        "crowd": {"waiting": waiting, **_longest(beside_crowd)},
        "hangs": _longest(beside_hanging),
    }


def _longest(waits: list[Wait]) -> dict[str, float]:
    return {
        "begun_s": round(max(wait.begun_s for wait in waits), 3),
        "ready_s": round(max(wait.ready_s for wait in waits), 3),
    }


def _send(found: World, names: list[str], class_name: str) -> None:
    path = path_of("bucketclaims", NAMESPACE)
    bodies = [typed("bucketclaims", claim_body(name, class_name=class_name)) for name in names]
    run(
        found.bed.plane,
        lambda load: load.for_each(bodies, lambda body: load.send("POST", path, body)),
    )


def _claim(found: World, name: str) -> Wait:
    """One claim of the neighbour, from its creation on."""
    began = time.time()
    found.bed.create(
        "bucketclaims",
        claim_body(name, class_name="gold", namespace=NEIGHBOUR),
        NEIGHBOUR,
    )
    claim = found.bed.get("bucketclaims", name, NEIGHBOUR)
    while not (claim.get("status") or {}).get("bucketReady"):
        if time.time() - began > WITHIN_S:
            raise TimeoutError(f"the neighbour's claim was not ready in {WITHIN_S:.0f} s")
        time.sleep(LOOK_S)
        claim = found.bed.get("bucketclaims", name, NEIGHBOUR)
    ready_s = time.time() - began
    bucket = f"bucket-{claim['metadata']['uid']}"
    calls = found.bed.driver.journal(Call.CREATE_BUCKET)
    called_at_s = next(entry.time_s for entry in calls if entry.fields["name"] == bucket)
    return Wait(called_at_s - began, ready_s)
