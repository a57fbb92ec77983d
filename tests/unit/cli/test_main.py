"""The edge of `cosi`: exit codes, consent, a reader that goes away, and never a traceback."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import anyio
import pytest
import yaml
from tests.support.apiserver import serving
from tests.support.clock import PATIENCE_S
from tests.support.sdk import written

import cosi_operator
from controlplane.daemon import coverage_variables
from cosi_operator import cli
from cosi_operator.cli import program
from cosi_operator.cli.arguments import Command
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.printed import CommandError, Printed
from cosi_operator.kube.errors import ApiError, ApiSilent, Forbidden
from cosi_operator.kube.kubeconfig import KubeconfigError

OPERATOR = Path(cosi_operator.__file__).parents[1]
EXPLAIN = ["policy", "explain", "--call", "DriverCreateBucket", "--code", "INTERNAL"]


@pytest.fixture(autouse=True)
def _logging_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_quiet_logs", lambda: None)


def test_a_command_that_needs_no_cluster_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(EXPLAIN) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("DriverCreateBucket answers INTERNAL:\n  verdict   requeue")
    assert printed.err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [pytest.param(["--help"], 0, id="help"), pytest.param(["nonsense"], 2, id="a wrong word")],
)
def test_the_parser_decides_the_code(words: Sequence[str], code: int) -> None:
    assert cli.main(words) == code


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help"]) == 0
    assert "  cosi why photos\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        pytest.param(
            Forbidden(403, "Forbidden", "no get on buckets"),
            "error: you have no right to do this: no get on buckets\n",
            id="forbidden",
        ),
        pytest.param(
            ApiSilent("GET buckets"),
            "error: no answer from the API server: GET buckets\n",
            id="no answer",
        ),
        pytest.param(
            ApiError(500, "InternalError", "broken"),
            "error: the API server refused: ",
            id="another refusal",
        ),
        pytest.param(KubeconfigError("no file\x1b[2J"), "error: no file", id="configuration"),
        pytest.param(CommandError("no such claim"), "error: no such claim\n", id="command"),
    ],
)
def test_a_failure_is_one_line_without_a_traceback(
    failure: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> NoReturn:
        raise failure

    monkeypatch.setattr(program, "_ask", fail)
    assert cli.main(["status"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(said)
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err


ESC = "\x1b[31m"


@pytest.mark.attack("a word of the command line drives the terminal of whoever sees the output")
@pytest.mark.parametrize(
    "words",
    [
        pytest.param([ESC], id="a command"),
        pytest.param(["status", f"--x{ESC}"], id="an option"),
        pytest.param(["status", ESC], id="a word too many"),
        pytest.param(["status", "-o", ESC], id="an output"),
        pytest.param(["status", "-n", f"/{ESC}"], id="a namespace"),
        pytest.param(["status", "--kubeconfig", f"/none/{ESC}"], id="a kubeconfig"),
        pytest.param(["why", f"{ESC}/x"], id="a kind to explain"),
        pytest.param(["retry", f"{ESC}/x"], id="a kind to retry"),
        pytest.param(["rotate", f"{ESC}/x"], id="a kind to rotate"),
        pytest.param(["drivers", f"--context={ESC}", "--kubeconfig=/none"], id="a context"),
        pytest.param(["rollback-check", f"--{ESC}"], id="an option of rollback-check"),
        pytest.param(["policy", ESC], id="a command of policy"),
        pytest.param(["policy", "show", "--driver", ESC], id="a driver"),
        pytest.param(["policy", "show", "--driver", ESC, "-o", "yaml"], id="a driver in YAML"),
        pytest.param(["policy", "show", "--profile", ESC], id="a profile"),
        pytest.param(["policy", "show", "--override", ESC], id="an override"),
        pytest.param(["policy", "show", "--file", f"/none/{ESC}"], id="a file"),
        pytest.param(["policy", "explain", "--call", ESC, "--code", "INTERNAL"], id="a call"),
        pytest.param([*EXPLAIN[:-1], ESC], id="a code"),
        pytest.param(["driver", "check", "--driver-addr", ESC], id="an address"),
        pytest.param(["driver", "check", "--parameter", ESC], id="a parameter"),
        pytest.param(["driver", "check", "--timeout", ESC], id="a timeout"),
        pytest.param(["completion", ESC], id="a shell"),
    ],
)
def test_no_word_reaches_the_terminal_with_a_control_character(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(words)
    printed = capsys.readouterr()
    assert printed.out + printed.err
    assert "\x1b" not in printed.out + printed.err


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_a_program_reads_what_is_escaped_for_people(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\xa0b\u2800\x9f\x1b"
    cli.main(["policy", "show", "--driver", name, "-o", output])
    assert yaml.safe_load(capsys.readouterr().out)["driver"] == name


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", interrupt)
    assert cli.main(["status"]) == 130


LOADING = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "argparse":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from cosi_operator.cli import main
sys.exit(main(["status"]))
"""


def environ() -> dict[str, str]:
    return {"PYTHONPATH": str(OPERATOR), "PATH": os.defpath, **coverage_variables()}


def test_an_interrupt_while_modules_are_loaded_ends_with_130() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], env=environ(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    "words", [EXPLAIN, ["__complete", "st"], ["completion", "bash"], ["--help"], ["--version"]]
)
def test_output_that_can_not_be_written_is_one_line(words: Sequence[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cosi_operator", "cosi", *words],
            stdout=full, stderr=subprocess.PIPE, env=environ(), text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device\n")


def test_a_terminal_without_unicode_shows_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(program, "_run", lambda command: Printed("\u2026\n"))
    assert cli.main(["status"]) == 0
    assert written.getvalue() == b"\\u2026\n"


def test_a_fault_of_cosi_is_one_line_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: Command) -> NoReturn:
        raise RuntimeError(f"{command.name}: Bearer canary-1")

    monkeypatch.setattr(program, "_ask", fail)
    assert cli.main(["status"]) == 2
    assert re.fullmatch(
        r"error: unexpected RuntimeError in program\.py, line \d+\. Please report [a-z ]+\.\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5://user:canary@127.0.0.1:1"),
        ("HTTP_PROXY", "http://user:canary@x:y"),
        ("HTTP_PROXY", "http://user:canary@p:99999"),
        ("http_proxy", "ftp://user:canary@p:1"),
        ("HTTP_PROXY", "http://user:canary@xn--a:1"),
        ("HTTP_PROXY", "http://"),
        ("HTTP_PROXY", "canary\x1b"),
        ("HTTPS_PROXY", "http://user:canary@p:99999"),
    ],
)
@pytest.mark.attack("an error about a proxy shows its password")
def test_a_proxy_that_can_not_be_used_names_the_variable(
    name: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = "https://h.example" if name == "HTTPS_PROXY" else "http://h.example"
    lead_to(server, tmp_path, monkeypatch)
    monkeypatch.setenv(name, value)
    assert cli.main(["status"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {name}: only http and https proxies are supported")
    assert printed.count("\n") == 1
    assert "canary" not in printed


@pytest.mark.parametrize("name", ["xn--a", "xn--zzzzzz-", "a..xn--a"])
def test_a_server_whose_name_is_invalid_names_the_field(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lead_to(f"http://{name}", tmp_path, monkeypatch)
    assert cli.main(["status"]) == 2
    assert re.fullmatch(r"error: .*clusters\[c\]\.server.*\n", capsys.readouterr().err)


def lead_to(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig that names this server."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (folder / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "config"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://x:y"),
        ("HTTP_PROXY", "http://x:99999"),  # loopback addresses have no proxy
        ("NO_PROXY", "[::1"),
        ("NO_PROXY", "a b,::1/128"),
        ("NO_PROXY", "\x1b"),
        ("SSL_CERT_FILE", "/nope"),
        ("SSL_CERT_DIR", "/nope"),
    ],
)
async def test_a_variable_that_is_not_used_is_not_checked(
    name: str, value: str, tmp_path: Path
) -> None:
    async with serving() as server:
        settings = {**environ(), name: value, "KUBECONFIG": str(written(server, tmp_path / "c"))}
        done = await anyio.run_process(
            [sys.executable, "-m", "cosi_operator", "cosi", "status"], env=settings, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(("value", "said"), [("/nope", "No such file"), ("/", "")])
def test_certificates_that_can_not_be_read_name_the_variable(
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lead_to("https://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setenv("SSL_CERT_FILE", value)
    assert cli.main(["status"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: SSL_CERT_FILE: {value} can't be read: {said}")
    assert printed.count("\n") == 1


def test_closed_streams_leave_the_exit_code() -> None:
    command = [sys.executable, "-m", "cosi_operator", "cosi"]
    shell = 'exec "$0" "$@" >&- 2>&-'
    codes = [
        subprocess.run(["sh", "-c", shell, *command, *words], env=environ(), check=False).returncode
        for words in (EXPLAIN, ["nonsense"])
    ]
    assert codes == [0, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_check_goes_on_with_consent(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    program._agree(Options(), "This creates a bucket.\n")
    assert capsys.readouterr().err.startswith("This creates a bucket.\n")


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "yesterday\n"])
def test_a_check_without_consent_creates_nothing(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(CommandError, match="nothing was created"):
        program._agree(Options(), "This creates a bucket.\n")


def test_consent_given_before_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    program._agree(Options(yes=True), "This creates a bucket.\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param(EXPLAIN, 0, id="explain"),
        pytest.param(["completion", "bash"], 0, id="a script"),
        pytest.param(["__complete", "st"], 0, id="a completion"),
        pytest.param(["--help"], 0, id="help"),
        pytest.param(["policy", "show", "--file", "/none"], 2, id="a failure"),
    ],
)
def test_a_reader_that_has_seen_enough_does_not_change_the_exit_code(
    words: Sequence[str], code: int
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cosi_operator", "cosi", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environ(),
        check=False,
    )
    os.close(writer)
    assert (done.returncode, bool(done.stderr)) == (code, code != 0)


async def test_a_watch_whose_reader_has_seen_enough_ends(tmp_path: Path) -> None:
    """Although nothing changes, so that the watch has nothing to write."""
    reader, writer = os.pipe()
    async with serving() as server:
        config = written(server, tmp_path / "config")
        with anyio.fail_after(PATIENCE_S):
            async with await anyio.open_process(
                [sys.executable, "-m", "cosi_operator", "cosi", "status", "--watch"],
                stdout=writer,
                env={**environ(), "KUBECONFIG": str(config)},
            ) as watching:
                os.close(writer)
                first = await anyio.to_thread.run_sync(os.read, reader, 1000)
                os.close(reader)
                code = await watching.wait()
    assert (code, first) == (0, b"No BucketClaims and no BucketAccesses in namespace default.\n")


async def test_a_watch_without_a_reader_ends(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with serving() as server:
        config = written(server, tmp_path / "config")
        with anyio.fail_after(PATIENCE_S):
            done = await anyio.run_process(
                [sys.executable, "-m", "cosi_operator", "cosi", "status", "--watch"],
                stdout=writer,
                env={**environ(), "KUBECONFIG": str(config)},
                check=False,
            )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_folder_in_place_of_a_policy_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["policy", "show", "--file", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --file {tmp_path}: it is a directory; name the file in it\n"
    )
