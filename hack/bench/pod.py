"""Run an entry point as in a Pod: with a service account's folder instead of a kubeconfig.

A kubeconfig would load kr8s, which reads them, and with it 43 MiB and 0.2 s that no Pod pays. The
folder's path is fixed by Kubernetes, so a machine without Pods needs this door. `rich`, which comes
with a development tool and is not in the image, is hidden: structlog would load it if it could.

    COSI_BENCH_ACCOUNT=/some/folder python -m bench.pod sidecar --driver-addr=...

With COSI_BENCH_FIFO, each queue is first come, first served, to have something to compare with.
"""

import functools
import importlib
import os
import sys
from pathlib import Path

sys.modules["rich"] = None  # type: ignore[assignment]  # this is how Python hides a module

from cosi_operator import app  # noqa: E402 - after the hiding
from cosi_operator.fairness import Groups, Shares, Sharing  # noqa: E402
from cosi_operator.kube import client  # noqa: E402
from cosi_operator.kube.kubeconfig import Sources  # noqa: E402


def main() -> int:
    """Run the entry point that the first argument names."""
    folder = Path(os.environ["COSI_BENCH_ACCOUNT"])
    vars(client)["Sources"] = functools.partial(Sources, service_account=folder)  # the door
    if os.environ.get("COSI_BENCH_FIFO"):
        process = importlib.import_module("cosi_operator.app.process")
        vars(process)["Sharing"] = lambda *_: Sharing(lambda _: Groups(), Shares())
    entry = {"controller": app.controller, "sidecar": app.sidecar}[sys.argv[1]]
    return entry(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
