"""What a start of `cosi` loads. Modules are counted, because seconds depend on the machine.

With the modules below, `cosi status` prints within 0.5 s on one idle core of 2023 with a warm disk;
kr8s alone takes 0.3 s of these.
"""

import sys
from pathlib import Path

import anyio
import pytest
from tests.support.apiserver import serving
from tests.support.sdk import written

import cosi_operator
from bench import start

OPERATOR = Path(cosi_operator.__file__).parents[1]
# A module of ours costs about 0.5 ms. Raise these only for a reason that is worth a slower start.
MODULES_OF_STATUS, MODULES_OF_HELP = 690, 210
# Libraries that only other commands, or the operator, need.
OTHERS = {"aiohttp", "boto3", "google.protobuf", "grpc", "opentelemetry", "prometheus_client"}
SCRIPT = """
import sys
from cosi_operator.cli import main
code = main(sys.argv[1:])
print(code, *sys.modules, file=sys.stderr)
"""


async def loaded(*words: str, kubeconfig: Path) -> tuple[str, set[str]]:
    """The output of a command, and the modules that it loaded."""
    done = await anyio.run_process(
        [sys.executable, "-c", SCRIPT, *words],
        env={"PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig), "HOME": "/nonexistent"},
        check=True,
    )
    code, *modules = done.stderr.decode().split()
    assert code == "0", done.stderr
    return done.stdout.decode(), set(modules)


async def test_status_loads_kr8s_and_little_else(tmp_path: Path) -> None:
    async with serving() as server:
        out, modules = await loaded("status", kubeconfig=written(server, tmp_path / "config"))
        asked = [seen.path.rpartition("/")[2] for seen in server.seen]
    assert out == "No BucketClaims and no BucketAccesses in namespace default.\n"
    assert asked == ["bucketclaims", "bucketaccesses"]  # and /version, for kr8s
    assert "kr8s" in modules
    assert modules.isdisjoint(OTHERS)
    assert len(modules) < MODULES_OF_STATUS


def test_the_time_to_the_first_line_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    start.main(1)
    printed = capsys.readouterr().out
    assert printed.startswith("cosi status: first line after ")
    assert int(printed.split()[-2]) < MODULES_OF_STATUS


@pytest.mark.parametrize(
    "words", [("--help",), ("policy", "show"), ("completion", "bash"), ("__complete", "st")]
)
async def test_what_needs_no_cluster_loads_no_kr8s(words: tuple[str, ...], tmp_path: Path) -> None:
    _, modules = await loaded(*words, kubeconfig=tmp_path / "none")
    assert modules.isdisjoint({"kr8s", "httpx", "structlog", *OTHERS})
    assert len(modules) < MODULES_OF_HELP
