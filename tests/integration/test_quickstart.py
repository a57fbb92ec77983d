"""docs/quickstart.md, word for word: every command of its console blocks, on the demo's world."""

import io
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.screen import Screen
from demo.setup import start
from demo.world import World

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "quickstart.md"
COMMAND_TIMEOUT_S = 40.0


def commands(page: str) -> list[str]:
    """What a reader types: lines after "$ ", a here-document with its lines up to END."""
    found: list[str] = []
    for block in re.findall(r"(?ms)^```console\n(.*?)^```", page):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            command = [line.removeprefix("$ ")]
            if "<<END" in line:
                for inner in lines:
                    command.append(inner)
                    if inner == "END":
                        break
            found.append("\n".join(command))
    return found


@pytest.fixture
def world() -> Iterator[World]:
    """What `make demo KEEP=1` leaves running."""
    with tempfile.TemporaryDirectory(prefix="cosi-") as directory, ExitStack() as stack:
        yield start(Screen(io.StringIO(), colour=False), Path(directory), stack)


def test_every_command_of_the_quickstart_works(world: World) -> None:
    typed = commands(PAGE.read_text(encoding="utf-8"))
    assert len(typed) >= 12
    environment = os.environ | {
        "KUBECONFIG": str(world.plane.admin_kubeconfig),
        "PATH": f"{world.plane.kubectl.parent}{os.pathsep}{os.environ['PATH']}",
    }
    shown: dict[str, str] = {}
    for command in typed:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env=environment,
            text=True,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        shown[command] = done.stdout + done.stderr
    (described,) = (text for command, text in shown.items() if " describe " in command)
    assert "DriverInvalidArgument" in described
    assert "No resources found" in shown["kubectl get buckets"]
    (info,) = (text for command, text in shown.items() if "BucketInfo" in command)
    assert '"accessSecretKey"' in info
    assert world.storage.buckets() == []
