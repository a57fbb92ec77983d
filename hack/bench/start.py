"""How long `cosi status` takes to its first line, and how many modules it loads.

Usage: python -m bench.start [RUNS]

The kubeconfig leads to a port where nothing listens, so the first line says "no answer": everything
is loaded and parsed, and no server is waited for. Prints the median of RUNS runs (10) after one
that warms the disk. tests/unit/cli/test_start.py limits the modules.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPERATOR = Path(__file__).resolve().parents[2] / "operator"
KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
"""
COUNTING = """
import sys
from cosi_operator.cli import main
main(["status"])
print(len(sys.modules))
"""


def first_line_s(environ: dict[str, str]) -> float:
    """Seconds from the start of the process to the first line that it prints."""
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "cosi_operator", "cosi", "status"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took_s = time.perf_counter() - began_s
        process.stdout.read()
    if not line.startswith(b"error: no answer from the API server"):
        raise SystemExit(f"not what was expected: {line.decode()}")
    return took_s


def main(runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder, "config")
        kubeconfig.write_text(KUBECONFIG)
        environ = {
            "PATH": os.defpath, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(OPERATOR)
        }  # fmt: skip
        first_line_s(environ)
        took_s = [first_line_s(environ) for _ in range(runs)]
        counted = subprocess.run(
            [sys.executable, "-c", COUNTING],
            env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    print(
        f"cosi status: first line after {statistics.median(took_s):.2f} s (median of {runs};"
        f" {min(took_s):.2f} to {max(took_s):.2f} s), {int(counted.stdout)} modules"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
