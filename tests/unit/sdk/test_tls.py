"""Certificates: which servers are trusted, and that no key of a client stays on a disk."""

import asyncio
import base64
import gc
import json
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
import yaml
from tests.support.apiserver import Hang, Reply, StubApiServer, serving
from tests.support.certificate import Pair, new_pair
from tests.support.clock import PATIENCE_S
from tests.support.sdk import OpenApis, kubeconfig_of
from tests.unit.sdk.conftest import fill

import cosi_operator
from cosi_operator import cli, sdk
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk import objects, roots

OPERATOR = Path(cosi_operator.__file__).parents[1]
PAIR = new_pair()


def wanting_a_certificate(folder: Path) -> ssl.SSLContext:
    """Of a server that wants a certificate of the client."""
    (folder / "server.pem").write_bytes(PAIR.certificate + PAIR.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=PAIR.ca.decode())
    return context


@contextmanager
def https(folder: Path) -> Iterator[StubApiServer]:
    """Such a server in a thread."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(wanting_a_certificate(folder))) as server,
    ):
        fill(server)
        yield server


def configure(folder: Path, server: StubApiServer, user: dict[str, Any], ca: bytes = b"") -> str:
    config = kubeconfig_of(server, **user)
    if ca:
        (folder / "ca.pem").write_bytes(ca)
        config["clusters"][0]["cluster"]["certificate-authority"] = str(folder / "ca.pem")
    (folder / "config").write_text(yaml.safe_dump(config))
    return str(folder / "config")


def printing(folder: Path, pair: Pair, **fields: str) -> dict[str, Any]:
    """A plugin that prints a certificate and its key."""
    fields |= {
        "clientCertificateData": pair.certificate.decode(),
        "clientKeyData": pair.key.decode(),
    }
    (folder / "answer").write_text(json.dumps({"status": fields}))
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat"}
    return {"exec": {**spec, "args": [str(folder / "answer")]}}


@pytest.mark.parametrize("token", ["", "t"])
@pytest.mark.parametrize("place", ["memory", "folder"])
async def test_a_key_that_a_plugin_prints_stays_on_no_disk(
    place: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(objects, "_apis", {})
    apis = OpenApis(monkeypatch)

    def temporary() -> list[str]:
        return [path.name for path in folder.iterdir()]

    if place == "folder":  # as on macOS
        monkeypatch.delattr(os, "memfd_create")
    with https(tmp_path) as server:
        config = configure(tmp_path, server, printing(tmp_path, PAIR, token=token), PAIR.ca)
        api = await async_sdk.api(config)
        await async_sdk.BucketClaim.get("photos", namespace="shop", api=api)
        assert temporary() == []
        server.fail_next("get", Reply(401, "Unauthorized", "expired"))
        await async_sdk.BucketClaim.get("photos", namespace="shop", api=api)
        assert temporary() == []
        synchronous = await asyncio.to_thread(sdk.api, config)
        await asyncio.to_thread(sdk.BucketClaim.get, "photos", namespace="shop", api=synchronous)
        code = await asyncio.to_thread(cli.main, ["--kubeconfig", config, "status", "-n", "shop"])
        assert code == 0
        assert temporary() == []
        # kubectl sends both too.
        sent = server.seen[-1].headers.get("Authorization", "Bearer ")
        assert sent == f"Bearer {token}"
        await asyncio.to_thread(apis.close)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_killed_process_leaves_no_key_on_the_disk(
    end: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    async with serving(wanting_a_certificate(tmp_path)) as server:
        config = configure(tmp_path, server, printing(tmp_path, PAIR), PAIR.ca)
        server.fail_next("list", Hang())
        environ = {"PATH": os.defpath, "PYTHONPATH": str(OPERATOR), "TMPDIR": str(folder)}
        words = ["-m", "cosi_operator", "cosi", "--kubeconfig", config, "status"]
        async with await anyio.open_process([sys.executable, *words], env=environ) as process:
            await server.wait_for(lambda: server.count("list") > 0)
            process.send_signal(end)
            with anyio.fail_after(PATIENCE_S):
                await process.wait()
        assert [path.name for path in folder.iterdir()] == []


async def test_a_certificate_of_the_client_without_a_ca_trusts_the_roots_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("cert.pem", PAIR.certificate), ("key.pem", PAIR.key)):
        (tmp_path / name).write_bytes(content)
    user = {
        "client-certificate": str(tmp_path / "cert.pem"),
        "client-key": str(tmp_path / "key.pem"),
    }
    with https(tmp_path) as server:
        config = configure(tmp_path, server, user)
        with pytest.raises(sdk.ApiSilent, match="certificate verify failed"):
            await async_sdk.api(config)
        (tmp_path / "root.pem").write_bytes(PAIR.ca)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
        api = await async_sdk.api(config)
        await async_sdk.BucketClaim.get("photos", namespace="shop", api=api)
        await api.close()  # type: ignore[attr-defined]


def test_the_roots_of_the_machine_come_before_those_of_a_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    none = ssl.DefaultVerifyPaths(None, None, "", "", "", "")  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: none)
    assert roots.public_roots().cert_store_stats()["x509_ca"] > 0  # those of certifi
    machine = none._replace(cafile="there")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: machine)
    default = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr(ssl, "create_default_context", lambda: default)
    assert roots.public_roots() is default


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_stays_open_after_an_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with https(tmp_path) as server:
        config = kubeconfig_of(
            server,
            **{
                "client-certificate-data": base64.b64encode(PAIR.certificate).decode(),
                "client-key-data": base64.b64encode(PAIR.key).decode(),
            },
        )
        config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(
            PAIR.ca
        ).decode()
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

        async def ask() -> None:
            await async_sdk.BucketClaim.get("photos", namespace="shop")

        asyncio.run(ask())
        gc.disable()  # so that the loop alone closes them
        try:
            before = descriptors()
            for _ in range(5):
                asyncio.run(ask())
            assert descriptors() <= before + 1  # the server can be slower to close its end
        finally:
            gc.enable()
        assert len(async_sdk._opened) == 0


def test_an_event_loop_that_was_closed_by_hand_is_forgotten(shop: object) -> None:
    async def ask() -> None:
        await async_sdk.api()

    by_hand = asyncio.new_event_loop()
    by_hand.run_until_complete(ask())
    (opened,) = async_sdk._opened.values()
    for api in opened.apis.values():
        by_hand.run_until_complete(api.close())
    by_hand.close()
    asyncio.run(ask())
    assert len(async_sdk._opened) == 0
