"""A cluster whose API server is reached by HTTPS_PROXY alone: both processes, and `cosi`.

The kubeconfig names a host that no resolver knows. The proxy asks for a password.
"""

import base64
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from controlplane.flags import write_secret
from testbed import Testbed, operator_process

SERVER = "api.cluster.example"
PORT = 6443
USER, PASSWORD = "cosi", "p%40ss-very-secret"  # percent-encoded, as in a URL
GRANTED = base64.b64encode(b"cosi:p@ss-very-secret")


class ConnectProxy:
    """An HTTP proxy that knows the one server and answers 407 without the right password."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.asked: list[str] = []
        self.refused = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, password: str = PASSWORD) -> str:
        return f"http://{USER}:{password}@127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (some := client.recv(4096)):
                    return
                head += some
            words = head.split(b"\r\n")[0].decode()
            self.asked.append(words)
            if b"Basic " + GRANTED + b"\r\n" not in head:
                self.refused += 1
                client.sendall(b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n")
                return
            if words != f"CONNECT {SERVER}:{PORT} HTTP/1.1":
                client.sendall(b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(self._target) as server:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=copy, args=(server, client), daemon=True)
                back.start()
                copy(client, server)
                back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the end of the stream, then end the other stream."""
    with suppress(OSError):
        while some := source.recv(65536):
            target.sendall(some)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as bed,
    ):
        yield bed


@pytest.fixture
def proxy(bed: Testbed) -> Iterator[ConnectProxy]:
    host, _, port = bed.plane.server_url.removeprefix("https://").rpartition(":")
    with closing(ConnectProxy((host, int(port)))) as proxy:
        yield proxy


def far_away(kubeconfig: Path, folder: Path) -> Path:
    """A kubeconfig whose server is known to the proxy alone."""
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    cluster |= {"server": f"https://{SERVER}:{PORT}", "tls-server-name": "localhost"}
    folder.mkdir(exist_ok=True)
    file = folder / "kubeconfig"
    write_secret(file, json.dumps(config))
    return file


@contextmanager
def running(bed: Testbed, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Both processes with these variables; their logs are in the bed's `processes`."""
    for role, flags in (
        ("controller", ()),
        ("sidecar", (f"--driver-addr={bed.driver.address}",)),
    ):
        space, account = bed.accounts[role]
        (folder / role).mkdir()
        process = operator_process(
            role,
            flags,
            kubeconfig=far_away(bed.plane.kubeconfig_for(space, account), folder / role),
            namespace=space,
            logs=folder / role,
            environment=environment,
        )
        process.start()
        bed.processes[role] = process
    try:
        yield
    finally:
        bed.stop_operator()


def logs(bed: Testbed) -> list[str]:
    return [bed.log_of("controller"), bed.log_of("sidecar")]


@pytest.mark.attack("only HTTPS_PROXY leads to the API server")
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_both_processes_and_cosi_reach_an_api_server_behind_a_proxy(
    bed: Testbed, proxy: ConnectProxy, tmp_path: Path, variable: str
) -> None:
    name = variable.lower().replace("_", "-") + ("-upper" if variable.isupper() else "")
    environment = {variable: proxy.url(), "NO_PROXY": "10.0.0.0/8,.svc,example.com"}
    with running(bed, tmp_path, environment):
        bed.until_leading()
        bed.make_classes(name)
        bed.make_claims([name], class_name=name)
        bed.make_accesses([name], class_name=name)
        bed.until_ready("bucketaccesses", [name])
        bed.delete("bucketclaims", name)
        bed.until_gone("bucketclaims", [name])
        asked = subprocess.run(
            [sys.executable, "-m", "cosi_operator", "cosi", "status", "-A"],
            env={
                **environment,
                "KUBECONFIG": str(far_away(bed.plane.admin_kubeconfig, tmp_path / "admin")),
                "PYTHONPATH": str(Path(__file__).parents[2] / "operator"),
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert asked.returncode == 0, asked.stderr
    assert set(proxy.asked) == {f"CONNECT {SERVER}:{PORT} HTTP/1.1"}
    assert proxy.refused == 0
    for log in logs(bed):
        assert f'"variable":"{variable}"' in log
        assert "very-secret" not in log


def test_a_proxy_that_refuses_the_password_is_told_without_the_password(
    bed: Testbed, proxy: ConnectProxy, tmp_path: Path
) -> None:
    with running(bed, tmp_path, {"HTTPS_PROXY": proxy.url("another-very-secret")}):
        bed.until("both to log it", lambda: all(" 407 Login" in log for log in logs(bed)))
    assert proxy.refused
    assert not any("very-secret" in log for log in logs(bed))
