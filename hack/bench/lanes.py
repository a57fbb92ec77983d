"""Accesses granted and revoked a second, for each --serialize-access-calls and speed of the driver.

Usage: PYTHONPATH=operator:hack python -m bench.lanes [ACCESSES]

Each setting gets its own sidecar on one API server. The accesses are spread over 20 buckets,
and created, and later deleted, all at once. Prints the table of docs/performance.md.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from controlplane import Audit
from cosi_operator.outcome import Call
from cosi_operator.settings import LaneScope
from testbed import Testbed, access_body

ACCESSES = 200
BUCKETS = 20
CALLS_S = (0.0, 0.05, 0.5)
TIMEOUT_S = 600.0


def measure(bed: Testbed, scope: LaneScope, call_s: float, count: int) -> tuple[float, float]:
    """Accesses granted, and revoked, a second."""
    bed.restart("sidecar", f"--serialize-access-calls={scope}")
    bed.driver.clear_rules()
    for call in (Call.GRANT_ACCESS, Call.REVOKE_ACCESS):
        bed.driver.set_rule(call, delay_s=call_s)
    prefix = f"{scope}-{round(call_s * 1000)}"
    names = [f"{prefix}-{number}" for number in range(count)]
    bodies = [
        access_body(name, class_name="gold", claim=f"claim-{number % BUCKETS}")
        for number, name in enumerate(names)
    ]
    granted_s = _timed(
        lambda: bed.create_all("bucketaccesses", bodies),
        lambda: bed.until_ready("bucketaccesses", names, timeout_s=TIMEOUT_S),
    )
    revoked_s = _timed(
        lambda: bed.delete_all("bucketaccesses", names),
        lambda: bed.until_gone("bucketaccesses", names, timeout_s=TIMEOUT_S),
    )
    return count / granted_s, count / revoked_s


def _timed(begin: Callable[[], None], wait: Callable[[], None]) -> float:
    began = time.perf_counter()
    begin()
    wait()
    return time.perf_counter() - began


def main() -> int:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ACCESSES
    print("| `serializeAccessCalls` | a call takes, s | granted/s | revoked/s |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), audit=Audit.NOTHING) as bed,
    ):
        bed.make_classes("gold")
        claims = [f"claim-{number}" for number in range(BUCKETS)]
        bed.make_claims(claims, class_name="gold")
        bed.until_ready("bucketclaims", claims)
        for call_s in CALLS_S:
            for scope in LaneScope:
                granted, revoked = measure(bed, scope, call_s, count)
                print(f"| `{scope}` | {call_s:g} | {granted:.0f} | {revoked:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
