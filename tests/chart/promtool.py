"""promtool, Prometheus' own tool: it parses rules and metrics and evaluates tests of rules."""

import os
import subprocess
from pathlib import Path

from controlplane.build import find


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """Run promtool; return what it wrote.

    Raises:
        AssertionError: promtool found a fault; the text is what it wrote.
    """
    done = subprocess.run(
        [find("promtool"), *arguments],
        env=os.environ | {"GOGC": "off"},  # a run ends within seconds: collecting only costs time
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output
