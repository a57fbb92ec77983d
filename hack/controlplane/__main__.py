"""Run one control plane until Ctrl-C: PYTHONPATH=hack python3 -m controlplane."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from controlplane.build import BuildError, ensure
from controlplane.daemon import StartError
from controlplane.plane import ControlPlane


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="controlplane", description=__doc__)
    parser.add_argument("--directory", type=Path, help="kept afterwards (default: a temporary one)")
    directory = parser.parse_args().directory
    # Both end it in order. Not a copy of the handler of SIGINT, which a shell's `&` ignores.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ensure(["etcd", "kube-apiserver", "kubectl"])
        with tempfile.TemporaryDirectory(prefix="controlplane-") as temporary:
            return _run(directory or Path(temporary))
    except KeyboardInterrupt:
        print("\nstopped")
        return 0
    except (BuildError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(directory: Path) -> int:
    with ControlPlane.start(directory) as plane:
        print(f"export KUBECONFIG={plane.admin_kubeconfig}")
        print("# runs until Ctrl-C", flush=True)
        while plane.is_running:
            time.sleep(0.5)
        print(f"error: a program exited unexpectedly; see {directory / 'logs'}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
