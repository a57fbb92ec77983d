"""`python -m cosi_operator`, which the image and the tests start."""

import subprocess
import sys
from pathlib import Path

import pytest

import cosi_operator
from controlplane.daemon import coverage_variables


@pytest.mark.parametrize("words", [[], ["operator"]], ids=["nothing", "an unknown word"])
def test_which_process_has_to_be_named(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cosi_operator", *words],
        env={"PYTHONPATH": str(Path(cosi_operator.__file__).parents[1]), **coverage_variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "usage: python -m cosi_operator controller|sidecar|cosi [flags]\n"
