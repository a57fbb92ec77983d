"""Credentials: always the newest that can be had, and never a value in a message or a repr."""

import json
import ssl
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from tests.support.certificate import new_pair
from tests.support.clock import FakeClock

from cosi_operator.kube.auth import (
    CredentialError,
    ExecCredentials,
    ExecPlugin,
    FixedToken,
    TokenFile,
    load_client_certificate,
)

V1 = "client.authentication.k8s.io/v1"
SECRET = "very-secret-value"


# --- tokens in files


async def test_a_fixed_token_is_sent_as_it_is_and_never_shown() -> None:
    assert await FixedToken(SECRET).authorization() == f"Bearer {SECRET}"
    assert await FixedToken().authorization() == ""
    assert SECRET not in repr(FixedToken(SECRET))
    assert not FixedToken(SECRET).reject(f"Bearer {SECRET}")


async def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    clock, file = FakeClock(), tmp_path / "token"
    file.write_text("one\n")
    credentials = TokenFile(file, clock)
    assert await credentials.authorization() == "Bearer one"
    file.write_text("two\n")
    clock.advance(59)
    assert await credentials.authorization() == "Bearer one"
    clock.advance(1)
    assert await credentials.authorization() == "Bearer two"


async def test_a_refused_token_is_read_again_immediately(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    credentials = TokenFile(file, FakeClock())
    await credentials.authorization()
    file.write_text("two")
    assert credentials.reject("Bearer one")
    assert await credentials.authorization() == "Bearer two"
    file.write_text("three")
    assert credentials.reject("Bearer one"), "somebody was late: the token is another by now"
    assert await credentials.authorization() == "Bearer two", "which needs no new look at the file"


async def test_a_kubelet_swaps_a_directory_and_the_new_token_is_seen(tmp_path: Path) -> None:
    clock = FakeClock()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    credentials = TokenFile(tmp_path / "token", clock)
    assert await credentials.authorization() == "Bearer one"
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").rename(tmp_path / "..data")
    clock.advance(60)
    assert await credentials.authorization() == "Bearer two"


UNUSABLE = {
    "an empty file": b"",
    "only white space": b" \n",
    "two lines": b"one\ntwo",
    "no text": b"\xff\xfe\x00",
    "a control character": b"one\x07",
}


@pytest.mark.parametrize("content", [pytest.param(c, id=n) for n, c in UNUSABLE.items()])
async def test_a_file_without_a_token_is_an_error_that_names_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(CredentialError, match=r"token file .*/token: ") as raised:
        await TokenFile(tmp_path / "token", FakeClock()).authorization()
    assert "one" not in str(raised.value)


@pytest.mark.parametrize("content", [pytest.param(c, id=n) for n, c in UNUSABLE.items()])
async def test_a_file_that_breaks_later_leaves_the_token_of_before(
    tmp_path: Path, content: bytes
) -> None:
    clock, file = FakeClock(), tmp_path / "token"
    file.write_text(SECRET)
    credentials = TokenFile(file, clock)
    await credentials.authorization()
    file.write_bytes(content)
    clock.advance(60)
    with capture_logs() as logs:
        assert await credentials.authorization() == f"Bearer {SECRET}"
    assert [entry["event"] for entry in logs] == ["token_file_unreadable"]
    assert SECRET not in str(logs)


async def test_a_path_that_is_none_is_an_error() -> None:
    with pytest.raises(CredentialError, match="token file"):
        await TokenFile(Path("a\0b"), FakeClock()).authorization()


# --- exec plugins

PLUGIN = """
import json, os, pathlib, sys
home = pathlib.Path(sys.argv[1])
runs = home / "runs"
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
(home / "info").write_text(os.environ["KUBERNETES_EXEC_INFO"])
(home / "mode").write_text(os.environ.get("MODE", ""))
sys.stdout.write((home / "answer").read_text())
sys.exit(int((home / "exit").read_text()) if (home / "exit").exists() else 0)
"""


class Plugin:
    """A program that answers with a file and counts its runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "plugin.py").write_text(PLUGIN)
        self.answer(token=SECRET)

    def answer(self, **status: object) -> None:
        self.say({"apiVersion": V1, "kind": "ExecCredential", "status": status})

    def say(self, answer: object) -> None:
        (self.home / "answer").write_text(json.dumps(answer))

    @property
    def runs(self) -> int:
        file = self.home / "runs"
        return len(file.read_text()) if file.exists() else 0

    def credentials(
        self, clock: FakeClock, tls: ssl.SSLContext | None = None, **fields: Any
    ) -> ExecCredentials:
        plugin = {
            "command": sys.executable,
            "args": [str(self.home / "plugin.py"), str(self.home)],
            "env": {"MODE": "test"},
            "api_version": V1,
        }
        return ExecCredentials(ExecPlugin(**(plugin | fields)), clock, tls)


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


async def test_a_plugin_gets_the_exec_info_and_its_token_is_used(plugin: Plugin) -> None:
    cluster = {"server": "https://example.com"}
    credentials = plugin.credentials(FakeClock(), cluster=cluster)
    assert await credentials.authorization() == f"Bearer {SECRET}"
    assert json.loads((plugin.home / "info").read_text()) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": cluster},
    }
    assert (plugin.home / "mode").read_text() == "test"


async def test_many_requests_make_one_run(plugin: Plugin) -> None:
    credentials = plugin.credentials(FakeClock())
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(credentials.authorization)
    assert plugin.runs == 1


async def test_a_plugin_runs_again_shortly_before_its_answer_expires(plugin: Plugin) -> None:
    clock = FakeClock()
    plugin.answer(token="one", expirationTimestamp=(clock.wall() + timedelta(60)).isoformat())
    credentials = plugin.credentials(clock)
    assert await credentials.authorization() == "Bearer one"
    plugin.answer(token="two")
    clock.advance(timedelta(60).total_seconds() - 11)
    assert await credentials.authorization() == "Bearer one"
    clock.advance(1)
    assert await credentials.authorization() == "Bearer two"
    clock.advance(1e6)
    await credentials.authorization()
    assert plugin.runs == 2, "an answer without an end is good until it is refused"


async def test_a_refused_answer_makes_one_more_run(plugin: Plugin) -> None:
    credentials = plugin.credentials(FakeClock())
    header = await credentials.authorization()
    plugin.answer(token="two")
    assert credentials.reject(header)
    assert await credentials.authorization() == "Bearer two"
    assert credentials.reject(header), "late, and about a token that is gone"
    assert await credentials.authorization() == "Bearer two"
    assert plugin.runs == 2


def _answer(status: object, **fields: object) -> dict[str, object]:
    return {"apiVersion": V1, "kind": "ExecCredential", "status": status} | fields


ANSWERS = {
    "nothing": (None, "exec plugin"),
    "no status": (_answer(None), "status"),
    "no credential": (_answer({}), "returned no credential"),
    "a certificate without its key": (
        _answer({"clientCertificateData": SECRET}),
        "returned no credential",
    ),
    "a pair that is none": (
        _answer({"clientCertificateData": SECRET, "clientKeyData": SECRET}),
        "did not return a PEM certificate",
    ),
    "a token of two lines": (_answer({"token": f"{SECRET}\nX-Evil: 1"}), "invalid in a header"),
    "a time without a zone": (
        _answer({"token": SECRET, "expirationTimestamp": "2026-01-01T00:00:00"}),
        "expirationTimestamp",
    ),
    "another version": (
        _answer({"token": SECRET}, apiVersion="client.authentication.k8s.io/v1beta1"),
        "returned apiVersion client.authentication.k8s.io/v1beta1",
    ),
}


@pytest.mark.parametrize(
    ("answer", "words"), [pytest.param(*case, id=name) for name, case in ANSWERS.items()]
)
async def test_an_unusable_answer_is_an_error_without_values(
    plugin: Plugin, answer: object, words: str
) -> None:
    plugin.say(answer)
    with pytest.raises(CredentialError, match=words) as raised:
        await plugin.credentials(FakeClock(), ssl.create_default_context()).authorization()
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value)


async def test_the_error_of_a_failed_plugin_names_its_exit_code(plugin: Plugin) -> None:
    (plugin.home / "exit").write_text("3")
    with pytest.raises(CredentialError, match="failed with exit code 3") as raised:
        await plugin.credentials(FakeClock()).authorization()
    assert SECRET not in str(raised.value)
    (plugin.home / "exit").unlink()


async def test_the_error_of_a_missing_plugin_contains_its_install_hint(plugin: Plugin) -> None:
    credentials = plugin.credentials(
        FakeClock(), command="no-such-plugin", install_hint="Get it from your admin.\n"
    )
    with pytest.raises(CredentialError, match=r"No such file.*; Get it from your admin\.$"):
        await credentials.authorization()


async def test_an_environment_that_no_process_can_have_is_an_error(plugin: Plugin) -> None:
    with pytest.raises(CredentialError, match="can't be run"):
        await plugin.credentials(FakeClock(), env={"A": "\0"}).authorization()


async def test_a_plugin_that_hangs_is_ended(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosi_operator.kube.auth.EXEC_DEADLINE_S", 0.2)
    waits = "import time; time.sleep(600)"
    with pytest.raises(CredentialError, match=r"did not finish within 0\.2 s"):
        await plugin.credentials(FakeClock(), args=["-c", waits]).authorization()


async def test_a_plugins_certificate_is_loaded(plugin: Plugin) -> None:
    pair = new_pair()
    plugin.answer(clientCertificateData=pair.certificate.decode(), clientKeyData=pair.key.decode())
    assert await plugin.credentials(FakeClock(), ssl.create_default_context()).authorization() == ""


def test_what_a_plugin_is_given_is_not_shown(plugin: Plugin) -> None:
    shown = repr(ExecPlugin("x", [], env={"TOKEN": SECRET}, api_version=V1))
    assert SECRET not in shown
    assert SECRET not in repr(plugin.credentials(FakeClock()))


# --- client certificates


def test_an_encrypted_key_is_rejected_without_a_password_prompt() -> None:
    pair = new_pair(password="open")
    with pytest.raises(ssl.SSLError):
        load_client_certificate(ssl.create_default_context(), pair.certificate, pair.key)


def test_a_certificate_with_the_key_of_another_one_is_rejected() -> None:
    with pytest.raises(ssl.SSLError):
        load_client_certificate(
            ssl.create_default_context(), new_pair().certificate, new_pair().key
        )


def test_without_memory_files_the_pair_meets_a_disk_only_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pair = new_pair()
    load_client_certificate(ssl.create_default_context(), pair.certificate, pair.key)
    assert list(tmp_path.iterdir()) == []
