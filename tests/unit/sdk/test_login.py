"""Credentials that can't be read end as one error, in the SDK and in `cosi`, and never another."""

import asyncio
import base64
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from tests.support.apiserver import Reply, StubApiServer, serving
from tests.support.certificate import Pair, new_pair
from tests.support.clock import PATIENCE_S, FakeClock
from tests.support.sdk import kubeconfig_of
from tests.unit.sdk.conftest import Shop

import cosi_operator
from cosi_operator import cli, sdk
from cosi_operator.api.resources import BUCKET_CLASSES
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Unauthorized
from cosi_operator.kube.kubeconfig import KubeconfigError, Sources
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import open_api, resolve

OPERATOR = Path(cosi_operator.__file__).parents[1]
GOLD = Key("", "gold")
PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1"}


def config(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def printing(folder: Path, output: str) -> dict[str, Any]:
    """A plugin that prints this."""
    (folder / "answer").write_text(output)
    return config({"exec": {**PLUGIN, "command": "cat", "args": [str(folder / "answer")]}})


def files(folder: Path) -> Pair:
    """The files that the kubeconfigs below name, besides those that can't be read."""
    pair = new_pair()
    (folder / "cert.pem").write_bytes(pair.certificate)
    (folder / "key.pem").write_bytes(pair.key)
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "latin-1").write_bytes(b"caf\xe9")
    (folder / "blanks").write_text("two words")
    return pair


@asynccontextmanager
async def refused_after_login(folder: Path) -> AsyncIterator[tuple[Client, Path]]:
    """A client whose token is refused from now on, and what its plugin prints at the next login."""
    answer = folder / "answer"
    answer.write_text('{"status": {"token": "first"}}')
    spec = {**PLUGIN, "command": "cat", "args": [str(answer)]}
    async with serving() as server:
        (folder / "config").write_text(yaml.safe_dump(kubeconfig_of(server, exec=spec)))
        api = await open_api(await resolve(Sources(str(folder / "config"), {})))
        server.allowed_tokens = set()
        try:
            yield Client(api, FakeClock()), answer
        finally:
            assert api._session is not None
            await api._session.aclose()


TOKEN = r"users\[(u|stub)\]\.tokenFile: token file .*/{}: .*; log in again"
CA = r"clusters\[c\]\.certificate-authority"
CERTIFICATE = r"users\[u\]\.client-certificate"
KEY = r"users\[u\]\.client-key"
EXEC = r"users\[u\]\.exec: exec plugin {} failed"
NO_FILE = r": .*/none can't be read: No such file or directory; name a file"
UNREADABLE = {
    "no token file": (config({"tokenFile": "none"}), TOKEN.format("none")),
    "a folder as token file": (config({"tokenFile": "folder"}), TOKEN.format("folder")),
    "an empty token file": (config({"tokenFile": "empty"}), TOKEN.format("empty")),
    "a token file that is not UTF-8": (config({"tokenFile": "latin-1"}), TOKEN.format("latin-1")),
    "a token file with two words": (config({"tokenFile": "blanks"}), TOKEN.format("blanks")),
    "a token file with NUL in its name": (config({"tokenFile": "a\0b"}), r"tokenFile: token file"),
    "a token with a line break": (config({"token": "a\nb"}), r"users\[u\]\.token: it has"),
    "no CA file": (config({}, **{"certificate-authority": "none"}), CA + NO_FILE),
    "a folder as CA": (config({}, **{"certificate-authority": "folder"}), CA + ": .*directory"),
    "a CA that is no PEM": (config({}, **{"certificate-authority": "latin-1"}), CA + ": cont"),
    "an empty CA": (config({}, **{"certificate-authority": "empty"}), CA + ": contains no PEM"),
    "a CA that is not base64": (config({}, **{"certificate-authority-data": "é!"}), CA + "-data:"),
    "no certificate": (
        config({"client-certificate": "none", "client-key": "key.pem"}),
        CERTIFICATE + NO_FILE,
    ),
    "a folder as certificate": (
        config({"client-certificate": "folder", "client-key": "key.pem"}),
        CERTIFICATE + ": .*Is a directory",
    ),
    "a certificate that is no PEM": (
        config({"client-certificate": "latin-1", "client-key": "key.pem"}),
        CERTIFICATE + ": give a PEM",
    ),
    "a certificate that is not base64": (
        config({"client-certificate-data": "%", "client-key": "key.pem"}),
        CERTIFICATE + "-data: it is not base64",
    ),
    "no key": (config({"client-certificate": "cert.pem", "client-key": "none"}), KEY + NO_FILE),
    "no field for the key": (config({"client-certificate": "cert.pem"}), "set both"),
    "no plugin": (config({"exec": {**PLUGIN, "command": "./none"}}), EXEC.format(".*/none")),
    "no plugin in PATH": (config({"exec": {**PLUGIN, "command": "no-such"}}), EXEC.format("no-.*")),
    "a folder as plugin": (config({"exec": {**PLUGIN, "command": "./folder"}}), EXEC.format(".*")),
    "a token file without an end": (
        config({"tokenFile": "/dev/zero"}),
        r"tokenFile: token file /dev/zero: it is larger than 1 MiB; log in",
    ),
    "a plugin without an end": (
        config({"exec": {**PLUGIN, "command": "cat", "args": ["/dev/zero"]}}),
        r"users\[u\]\.exec: exec plugin cat printed more than 1 MiB",
    ),
    "a plugin with NUL in an argument": (
        config({"exec": {**PLUGIN, "command": "cat", "args": ["a\0b"]}}),
        EXEC.format("cat"),
    ),
    "a plugin that fails": (config({"exec": {**PLUGIN, "command": "false"}}), EXEC.format("false")),
}  # fmt: skip
ANSWERS = {
    "no JSON": "token",
    "nothing": "",
    "no object": "[]",
    "no status": "{}",
    "an empty status": '{"status": null}',
    "a status without a credential": '{"status": {}}',
    "a status that is a number": '{"status": 7}',
    "a certificate that is no PEM": json.dumps(
        {"status": {"clientCertificateData": "x", "clientKeyData": "y"}}
    ),
}


def check(path: Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both flavours of the SDK raise the documented error; `cosi` prints it as one line."""
    with pytest.raises(sdk.KubeconfigError, match=said):
        sdk.api(kubeconfig=str(path))
    with pytest.raises(sdk.KubeconfigError, match=said):
        anyio.run(async_sdk.api, str(path))
    capsys.readouterr()  # what a plugin printed
    assert cli.main(["--kubeconfig", str(path), "status"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("what", UNREADABLE)
def test_credentials_that_can_not_be_read_name_file_field_and_fix(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path)
    content, said = UNREADABLE[what]
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    check(tmp_path / "config", said, capsys)


@pytest.mark.parametrize("what", ANSWERS)
def test_a_plugin_that_prints_no_credential_failed(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = printing(tmp_path, ANSWERS[what])
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    check(tmp_path / "config", EXEC.format("cat"), capsys)


@pytest.mark.parametrize("token", ["canary-1\n", "canary-1\r\nx: y"])
async def test_a_token_that_no_header_can_hold_is_not_shown(
    token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answer").write_text(json.dumps({"status": {"token": token}}))
    spec = {**PLUGIN, "command": "cat", "args": [str(tmp_path / "answer")]}
    path = str(tmp_path / "config")
    async with serving() as server:
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig_of(server, exec=spec)))
        with pytest.raises(KubeconfigError, match="exec plugin cat printed a token with") as told:
            await async_sdk.api(path)
        code = await anyio.to_thread.run_sync(cli.main, ["--kubeconfig", path, "status"])
        assert (code, server.seen) == (2, [])
    assert "canary" not in str(told.value)
    assert "canary" not in "".join(capsys.readouterr())


async def test_an_answer_of_no_api_server_is_not_blamed_on_a_plugin_or_an_inline_ca(
    tmp_path: Path,
) -> None:
    pair = files(tmp_path)
    (tmp_path / "server.pem").write_bytes(pair.certificate + pair.key)
    (tmp_path / "answer").write_text('{"status": {"token": "first"}}')
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem")
    plugin = {**PLUGIN, "command": "cat", "args": [str(tmp_path / "answer")]}
    async with serving(tls) as server:
        server.fail_next("version", Reply(200, body=b"<html>"))
        content = kubeconfig_of(server, exec=plugin)
        inline = base64.b64encode(pair.ca).decode()
        content["clusters"][0]["cluster"]["certificate-authority-data"] = inline
        (tmp_path / "config").write_text(yaml.safe_dump(content))
        found = await resolve(Sources(str(tmp_path / "config"), {}))
        with pytest.raises(ApiSilent, match=r"get version from .*: the answer is not JSON; is"):
            await open_api(found)


@pytest.mark.attack("an error of the SDK holds the token that a plugin printed later")
@pytest.mark.parametrize("token", ["canary-1\n", "canary-1\u2603", "canary-1\0", "canary-1\udc80"])
async def test_a_later_token_that_no_header_can_hold_is_not_shown(
    token: str, tmp_path: Path
) -> None:
    async with refused_after_login(tmp_path) as (client, answer):
        answer.write_text(json.dumps({"status": {"token": token}}))
        for _ in range(2):
            with pytest.raises(
                KubeconfigError, match=r"plugin cat (printed a token with|failed)"
            ) as told:
                await client.get(BUCKET_CLASSES, GOLD)
            assert "canary" not in f"{told.value} {told.value!r} {told.value.args}"
            assert (told.value.__context__, told.value.__cause__) == (None, None)


POD = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}


def account(folder: Path) -> Path:
    """A service account as the kubelet mounts it."""
    (folder / "account").mkdir()
    (folder / "account" / "token").write_text("from-the-kubelet")
    (folder / "account" / "ca.crt").write_bytes(new_pair().ca)
    return folder / "account"


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        pytest.param("token", Path.unlink, "token: No such file", id="no token"),
        pytest.param("token", lambda path: path.write_text(""), "no token; mount", id="empty"),
        pytest.param("token", lambda path: path.write_bytes(b"\xff"), "Unicode", id="no text"),
        pytest.param("token", replace_with_folder, "Is a directory", id="a folder"),
        pytest.param("ca.crt", Path.unlink, "ca.crt can't be read: No such", id="no CA"),
        pytest.param("ca.crt", lambda path: path.write_text(""), "no PEM", id="an empty CA"),
    ],
)  # fmt: skip
async def test_a_pod_without_a_token_or_a_ca_is_told_so(
    name: str, change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    folder = account(tmp_path)
    change(folder / name)
    with pytest.raises(KubeconfigError, match=said):
        await resolve(Sources(None, POD, folder))


@pytest.mark.parametrize("name", ["HOST", "PORT"])
async def test_an_address_that_no_server_has_is_told(name: str, tmp_path: Path) -> None:
    environ = {**POD, f"KUBERNETES_SERVICE_{name}": "a\x1bb"}
    with pytest.raises(KubeconfigError, match=rf"{name}=a\\x1bb .*must be a host and a port"):
        await resolve(Sources(None, environ, account(tmp_path)))


def test_cosi_in_a_pod_without_a_token_prints_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = account(tmp_path)
    (folder / "token").unlink()
    in_pod = Sources(None, POD, folder, quiet=True)
    monkeypatch.setattr("cosi_operator.cli.commands.default_sources", lambda *_: in_pod)
    assert cli.main(["status"]) == 2
    assert capsys.readouterr().err == (
        f"error: the pod's service account: token file {folder}/token: No such file or directory;"
        " mount its token (automountServiceAccountToken), or pass --kubeconfig\n"
    )


def test_plain_http_needs_no_ca_and_no_certificate_as_in_kubectl(tmp_path: Path) -> None:
    async def ask() -> bytes:
        async with serving() as server:
            server.put(BUCKET_CLASSES, GOLD, driverName="d.example.com")
            content = kubeconfig_of(server, **{"token": "t", "client-key-data": "%"})
            content["clusters"][0]["cluster"]["certificate-authority"] = "none"
            (tmp_path / "config").write_text(yaml.safe_dump(content))
            api = await open_api(await resolve(Sources(str(tmp_path / "config"), {})))
            try:
                return await Client(api, FakeClock()).get(BUCKET_CLASSES, GOLD)
            finally:
                assert api._session is not None
                await api._session.aclose()

    assert b"d.example.com" in anyio.run(ask)


def with_token_file(server: StubApiServer, folder: Path) -> Path:
    (folder / "token").write_text("first")
    (folder / "config").write_text(yaml.safe_dump(kubeconfig_of(server, tokenFile="token")))
    server.put(BUCKET_CLASSES, GOLD, driverName="d.example.com")
    server.allowed_tokens = {"Bearer first"}
    return folder / "config"


async def test_a_token_file_is_read_again_when_its_token_is_refused(tmp_path: Path) -> None:
    async with serving() as server:
        path = with_token_file(server, tmp_path)
        api = await open_api(await resolve(Sources(str(path), {})))
        client = Client(api, FakeClock())
        try:
            await client.get(BUCKET_CLASSES, GOLD)
            server.allowed_tokens = {"Bearer second"}
            with pytest.raises(Unauthorized):
                await client.get(BUCKET_CLASSES, GOLD)
            (tmp_path / "token").write_text("second")
            await client.get(BUCKET_CLASSES, GOLD)
            server.allowed_tokens = set()
            (tmp_path / "token").unlink()
            with pytest.raises(KubeconfigError, match=TOKEN.format("token")):
                await client.get(BUCKET_CLASSES, GOLD)
        finally:
            assert api._session is not None
            await api._session.aclose()


def test_a_token_file_that_vanishes_is_told_by_the_synchronous_classes(
    shop: Shop, tmp_path: Path
) -> None:
    used = sdk.api(kubeconfig=str(with_token_file(shop.server, tmp_path)))
    assert sdk.BucketClass.get("gold", api=used).name == "gold"
    shop.server.allowed_tokens = {"Bearer second"}
    (tmp_path / "token").write_text("second")
    assert sdk.BucketClass.get("gold", api=used).name == "gold"
    shop.server.allowed_tokens = set()
    (tmp_path / "token").unlink()
    with pytest.raises(sdk.KubeconfigError, match=TOKEN.format("token")):
        sdk.BucketClass.get("gold", api=used)


async def test_a_plugin_that_fails_later_is_told_as_such(tmp_path: Path) -> None:
    async with refused_after_login(tmp_path) as (client, answer):
        answer.unlink()
        with pytest.raises(KubeconfigError, match=r"users\[stub\]\.exec: exec plugin cat fail"):
            await client.get(BUCKET_CLASSES, GOLD)


async def test_a_certificate_that_vanishes_is_told_as_such(tmp_path: Path) -> None:
    pair = files(tmp_path)
    (tmp_path / "server.pem").write_bytes(pair.certificate + pair.key)
    (tmp_path / "ca.pem").write_bytes(pair.ca)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem")
    async with serving(tls) as server:
        user = {"client-certificate": "cert.pem", "client-key": "key.pem"}
        content = kubeconfig_of(server, **user)
        content["clusters"][0]["cluster"]["certificate-authority"] = "ca.pem"
        (tmp_path / "config").write_text(yaml.safe_dump(content))
        found = await resolve(Sources(str(tmp_path / "config"), {}))
        (tmp_path / "key.pem").unlink()
        with pytest.raises(KubeconfigError, match=r"client-key: .*key\.pem can't be read: No such"):
            await open_api(found)


SLEEPING = """#!/bin/sh
trap '' INT
echo $$ > {folder}/pid
exec sleep 600
"""


def sleeping(folder: Path) -> Path:
    """A kubeconfig whose plugin never ends and ignores SIGINT; it sends its process id first."""
    os.mkfifo(folder / "pid")
    (folder / "login").write_text(SLEEPING.format(folder=folder))
    (folder / "login").chmod(0o755)
    content = config({"exec": {**PLUGIN, "command": "./login"}})
    (folder / "config").write_text(yaml.safe_dump(content))
    return folder / "config"


async def started(folder: Path) -> int:
    """The process id of the plugin, once it runs."""
    return int(await anyio.Path(folder / "pid").read_text())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_an_interrupt_of_cosi_alone_ends_it_and_its_plugin(tmp_path: Path) -> None:
    async with await anyio.open_process(
        [sys.executable, "-m", "cosi_operator", "cosi", "status"],
        env={
            "PYTHONPATH": str(OPERATOR),
            "PATH": os.defpath,
            "KUBECONFIG": str(sleeping(tmp_path)),
        },
        stderr=None,
    ) as process:
        plugin = await started(tmp_path)
        process.send_signal(signal.SIGINT)
        with anyio.fail_after(PATIENCE_S):
            assert await process.wait() == 130
    assert not is_running(plugin)


async def test_a_cancelled_task_ends_its_plugin(tmp_path: Path) -> None:
    found = await resolve(Sources(str(sleeping(tmp_path)), {}))
    task = asyncio.create_task(open_api(found))
    plugin = await started(tmp_path)
    task.cancel()
    with anyio.fail_after(PATIENCE_S), pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(plugin)


@pytest.mark.parametrize("when", ["at the first login", "later"])
async def test_a_plugin_that_never_ends_is_killed_in_time(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "login"
    login.write_text('#!/bin/sh\necho \'{"status": {"token": "first"}}\'\n')
    login.chmod(0o755)
    os.mkfifo(tmp_path / "pid")
    async with serving() as server:
        spec = {**PLUGIN, "command": "./login"}
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig_of(server, exec=spec)))
        found = await resolve(Sources(str(tmp_path / "config"), {}))
        api = await open_api(found) if when == "later" else None
        login.write_text(SLEEPING.format(folder=tmp_path))
        server.allowed_tokens = set()
        monkeypatch.setattr("cosi_operator.sdk.login.REQUEST_TIMEOUT_S", 2.0)
        results: list[BaseException] = []

        async def ask() -> None:
            try:
                if api is None:
                    await open_api(found)
                else:
                    await Client(api, FakeClock()).get(BUCKET_CLASSES, GOLD)
            except KubeconfigError as error:
                results.append(error)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                plugin = await started(tmp_path)
        assert "users[stub].exec: exec plugin" in str(results[0])
        assert "login did not end within 2 s" in str(results[0])
        assert not is_running(plugin)
        if api is not None:
            await api.close()
