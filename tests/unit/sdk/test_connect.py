"""The one kubeconfig that kr8s is given: joined as by kubectl, and no key stays on the disk."""

import base64
import gc
import json
import os
import ssl
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from tests.support.apiserver import Reply, StubApiServer, serving
from tests.support.certificate import Pair, new_pair
from tests.support.clock import FakeClock
from tests.support.sdk import TOKEN, kubeconfig_of, written

import cosi_operator
from cosi_operator.api.resources import BUCKET_CLASSES
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiSilent, Forbidden, TooManyRequests, Unauthorized
from cosi_operator.kube.kubeconfig import KubeconfigError, Sources
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import Resolved, open_api, resolve

OPERATOR = Path(cosi_operator.__file__).parents[1]
GOLD = Key("", "gold")
EXEC_API = "client.authentication.k8s.io/v1"


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test sees every file that is left behind."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "tmp").rglob("*") if path.is_file())


async def resolved(tmp_path: Path, *contents: dict[str, Any], **options: Any) -> Resolved:
    paths = []
    for number, content in enumerate(contents):
        path = tmp_path / f"config-{number}"
        path.write_text(yaml.safe_dump(content))
        paths.append(str(path))
    return await resolve(Sources(os.pathsep.join(paths), {}, tmp_path, **options))


async def read(found: Resolved) -> bytes:
    """Read one object with what was resolved."""
    api = await open_api(found)
    try:
        return await Client(api, FakeClock()).get(BUCKET_CLASSES, GOLD)
    finally:
        assert api._session is not None
        await api._session.aclose()


def server_context(pair: Pair, folder: Path) -> ssl.SSLContext:
    """Of a server with this certificate."""
    (folder / "server.pem").write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


def put_gold(server: StubApiServer) -> None:
    server.put(BUCKET_CLASSES, GOLD, driverName="d.example.com")


async def test_the_first_file_to_name_a_thing_wins_as_in_kubectl(tmp_path: Path) -> None:
    async with serving() as server:
        put_gold(server)
        server.allowed_tokens = {"Bearer first"}
        first = {"users": [{"name": "stub", "user": {"token": "first"}}]}
        found = await resolved(tmp_path, first, kubeconfig_of(server))
        assert b"d.example.com" in await read(found)


async def test_an_empty_file_is_joined_as_one_without_entries(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    async with serving() as server:
        put_gold(server)
        config = written(server, tmp_path / "config")
        joined = os.pathsep.join((str(tmp_path / "empty"), str(config)))
        assert b"d.example.com" in await read(await resolve(Sources(joined, {}, tmp_path)))


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("place", ["memory", "folder"])
async def test_keys_that_are_inline_are_deleted_with_the_api_object(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "folder":  # as on macOS
        monkeypatch.delattr(os, "memfd_create")
    before = descriptors()
    pair = new_pair()
    async with serving(server_context(pair, tmp_path)) as server:
        put_gold(server)
        config = kubeconfig_of(server)
        config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(
            pair.ca
        ).decode()
        config["users"][0]["user"] = {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }
        found = await resolved(tmp_path, config)
        assert "data" not in json.dumps(found.kubeconfig)
        key = Path(found.kubeconfig["users"][0]["user"]["client-key"])
        assert content(key) == pair.key
        if place == "folder":
            three = ["certificate-authority", "client-certificate", "client-key"]
            assert files(tmp_path) == three
            assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
        else:
            assert files(tmp_path) == []
        assert b"d.example.com" in await read(found)
    del found
    gc.collect()
    assert files(tmp_path) == []
    assert content(key) is None
    assert descriptors() <= before


async def test_keys_are_deleted_when_the_server_can_not_be_reached(tmp_path: Path) -> None:
    pair = new_pair()
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://127.0.0.1:1",
                    "certificate-authority-data": base64.b64encode(pair.ca).decode(),
                },
            }
        ],
    }
    found = await resolved(tmp_path, config)
    with pytest.raises(ApiSilent, match=r"from https://127\.0\.0\.1:1: Connection refused"):
        await open_api(found)
    assert files(tmp_path) == []


async def test_a_token_file_is_read_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    async with serving() as server:
        put_gold(server)
        server.allowed_tokens = {"Bearer from-a-file"}
        found = await resolved(tmp_path, kubeconfig_of(server, tokenFile="token"))
        assert b"d.example.com" in await read(found)


@pytest.mark.parametrize("end", ["", "\n"], ids=["a token", "a token and a newline"])
async def test_a_pod_uses_its_service_account(tmp_path: Path, end: str) -> None:
    account = tmp_path / "account"
    account.mkdir()
    pair = new_pair()
    (account / "token").write_text(f"from-the-kubelet{end}")
    (account / "namespace").write_text("storage\n")
    (account / "ca.crt").write_bytes(pair.ca)
    async with serving(server_context(pair, tmp_path)) as server:
        put_gold(server)
        server.allowed_tokens = {"Bearer from-the-kubelet"}
        host, port = server.url.removeprefix("https://").split(":")
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        found = await resolve(Sources(None, environ, account))
        assert found.kubeconfig["contexts"][0]["context"]["namespace"] == "storage"
        assert b"d.example.com" in await read(found)


def plugin(tmp_path: Path, script: str) -> str:
    path = tmp_path / "bin" / "login"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return "bin/login"


async def test_an_exec_plugin_is_run_beside_its_file_and_told_the_cluster(tmp_path: Path) -> None:
    command = plugin(
        tmp_path,
        f'printf %s "$KUBERNETES_EXEC_INFO" > {tmp_path}/told\n'
        'echo "{\\"status\\": {\\"token\\": \\"$GIVEN\\"}}"',
    )
    spec = {
        "apiVersion": EXEC_API,
        "command": command,
        "env": [{"name": "GIVEN", "value": "from-a-plugin"}],
        "provideClusterInfo": True,
    }
    async with serving() as server:
        put_gold(server)
        server.allowed_tokens = {"Bearer from-a-plugin"}
        found = await resolved(tmp_path, kubeconfig_of(server, exec=spec))
        assert b"d.example.com" in await read(found)
        told = json.loads((tmp_path / "told").read_text())
        assert told["spec"]["cluster"] == {"server": server.url}


async def test_an_exec_plugin_prints_its_instructions_where_we_print_ours(tmp_path: Path) -> None:
    command = plugin(tmp_path, "echo 'run: login --again' >&2; exit 1")
    kubeconfig = tmp_path / "config"
    spec = {"apiVersion": EXEC_API, "command": command}
    async with serving() as server:
        kubeconfig.write_text(json.dumps(kubeconfig_of(server, exec=spec)))
        done = await anyio.run_process(
            [sys.executable, "-m", "cosi_operator", "cosi", "status"],
            env={
                "PYTHONPATH": str(OPERATOR),
                "KUBECONFIG": str(kubeconfig),
                "HOME": "/nonexistent",
            },
            check=False,
        )
    assert done.returncode == 2
    first, second = done.stderr.decode().splitlines()
    assert first == "run: login --again"
    assert second.startswith(f"error: {kubeconfig}: users[stub].exec: exec plugin ")


async def test_an_exec_plugin_that_fails_is_named_without_what_it_printed(tmp_path: Path) -> None:
    command = plugin(tmp_path, "echo SECRET-OUTPUT; echo SECRET-ERROR >&2; exit 1")
    spec = {"apiVersion": EXEC_API, "command": command, "installHint": "Run: login --again"}
    async with serving() as server:
        found = await resolved(tmp_path, kubeconfig_of(server, exec=spec))
        with pytest.raises(KubeconfigError, match=r"bin/login failed\. Run: login") as raised:
            await open_api(found)
    assert "SECRET" not in str(raised.value)
    assert raised.value.__suppress_context__


async def test_an_expired_token_is_asked_for_again_once(tmp_path: Path) -> None:
    command = plugin(
        tmp_path,
        f"n=$(cat {tmp_path}/n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {tmp_path}/n\n"
        'echo "{\\"status\\": {\\"token\\": \\"token-$n\\"}}"',
    )
    async with serving() as server:
        put_gold(server)
        found = await resolved(
            tmp_path, kubeconfig_of(server, exec={"apiVersion": EXEC_API, "command": command})
        )
        api = await open_api(found)
        client = Client(api, FakeClock())
        server.allowed_tokens = {"Bearer token-2"}
        assert b"d.example.com" in await client.get(BUCKET_CLASSES, GOLD)
        server.allowed_tokens = set()
        with pytest.raises(Unauthorized):
            await client.get(BUCKET_CLASSES, GOLD)
        assert api._session is not None
        await api._session.aclose()


async def test_a_missing_right_costs_one_request_and_no_new_login(tmp_path: Path) -> None:
    async with serving() as server:
        server.forbid("get", "bucketclasses")
        with pytest.raises(Forbidden):
            await read(await resolved(tmp_path, kubeconfig_of(server)))
        assert server.count("get") == 1


async def test_a_busy_server_is_asked_again_after_the_time_that_it_names(tmp_path: Path) -> None:
    busy = Reply(429, "TooManyRequests", "busy", {"Retry-After": "3600"})
    async with serving() as server:
        put_gold(server)
        api = await open_api(await resolved(tmp_path, kubeconfig_of(server)))
        clock = FakeClock()
        client = Client(api, clock)
        async with clock.flying():
            server.fail_next("get", busy, busy)
            assert b"d.example.com" in await client.get(BUCKET_CLASSES, GOLD)
            server.fail_next("get", *[busy] * 4)
            with pytest.raises(TooManyRequests):
                await client.get(BUCKET_CLASSES, GOLD)
        assert clock.monotonic() - FakeClock().monotonic() <= 60
        assert api._session is not None
        await api._session.aclose()


async def test_a_server_that_is_away_is_no_answer(tmp_path: Path) -> None:
    async with serving() as server:
        config = kubeconfig_of(server)
        api = await open_api(await resolved(tmp_path, config))
    with pytest.raises(ApiSilent, match="get bucketclasses gold: ") as raised:
        await Client(api, FakeClock()).get(BUCKET_CLASSES, GOLD)
    assert TOKEN not in str(raised.value)
    assert api._session is not None
    await api._session.aclose()


async def test_a_name_of_the_certificate_behind_a_proxy_is_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    async with serving() as server:
        config = kubeconfig_of(server)
        cluster = config["clusters"][0]["cluster"]
        cluster |= {"tls-server-name": "kubernetes", "proxy-url": "http://proxy.example:3128"}
        with pytest.raises(KubeconfigError, match=r"kr8s can't use it behind a proxy; in `server`"):
            await resolved(tmp_path, config)
