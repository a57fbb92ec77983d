"""The test control plane itself: what it promises to the tests that stand on it."""

import datetime
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane import (
    Api,
    ApiError,
    Audit,
    AuditEntry,
    AuditLog,
    Binaries,
    BuildError,
    ControlPlane,
    KubectlError,
    StartError,
    build,
)
from controlplane.audit import BLOCK_BYTES
from controlplane.daemon import Daemon

HACK = Path(build.__file__).parents[1]
SLEEP = shutil.which("sleep") or "/bin/sleep"

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as started:
        yield started


# The build


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Return a copy of the folders with the pins, to be changed at will."""
    for folder in {program.folder for program in build.PROGRAMS.values()}:
        shutil.copytree(build.HERE / folder, tmp_path / "modules" / folder)
    return tmp_path / "modules"


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `go` on the PATH that only notes its calls, in the returned file, and is slow."""
    calls = tmp_path / "calls"
    script = f"""#!/bin/sh
echo called >> {calls}
sleep 0.2
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""
    _use_go(tmp_path / "path", script, monkeypatch)
    return calls


def _use_go(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_program(folder / "go", script)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(build.ASSETS_VARIABLE, raising=False)


def _write_program(file: Path, script: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_changed_pin_changes_the_cache_key(modules: Path, file: str) -> None:
    etcd, helm = build.PROGRAMS["etcd"], build.PROGRAMS["helm"]
    before = build.cache_key(etcd, modules), build.cache_key(helm, modules)
    with (modules / "etcd" / file).open("a") as opened:
        opened.write("// changed\n")
    assert build.cache_key(etcd, modules) != before[0]
    assert build.cache_key(helm, modules) == before[1]


def test_programs_of_one_module_have_different_keys() -> None:
    assert len({build.cache_key(program) for program in build.PROGRAMS.values()}) == len(
        build.PROGRAMS
    )


def test_the_version_stamp_follows_the_pin(modules: Path) -> None:
    go_mod = (modules / "kubernetes" / "go.mod").read_text().replace("v1.34.4", "v1.99.7")
    flags = build.linker_flags(build.PROGRAMS["kubectl"], go_mod)
    assert "version.gitVersion=v1.99.7" in flags
    assert "version.gitMinor=99" in flags


def test_a_second_build_does_nothing(tmp_path: Path, fake_go: Path) -> None:
    build.ensure(["etcd"], tmp_path / "cache")
    build.ensure(["etcd"], tmp_path / "cache")
    assert build.find("etcd", tmp_path / "cache").read_text() == "built\n"
    assert fake_go.read_text().splitlines() == ["called"]


def test_a_binary_with_another_key_is_built_again(tmp_path: Path, fake_go: Path) -> None:
    build.ensure(["etcd"], tmp_path / "cache")
    (tmp_path / "cache" / "etcd.stamp").write_text("of older pins")
    with pytest.raises(BuildError, match=r"build\.py etcd"):
        build.find("etcd", tmp_path / "cache")
    build.ensure(["etcd"], tmp_path / "cache")
    assert fake_go.read_text().splitlines() == ["called", "called"]


def test_two_builds_at_once_build_once(tmp_path: Path, fake_go: Path) -> None:
    both = [
        threading.Thread(target=build.ensure, args=(["etcd"], tmp_path / "cache")) for _ in "ab"
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert fake_go.read_text().splitlines() == ["called"]


def test_given_programs_win_over_built_ones(
    tmp_path: Path, fake_go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _write_program(tmp_path / "assets" / "etcd", "#!/bin/sh\n")
    monkeypatch.setenv(build.ASSETS_VARIABLE, str(given.parent))
    build.ensure(["etcd"], tmp_path / "cache")
    assert build.find("etcd", tmp_path / "cache") == given
    assert not fake_go.exists()


def test_a_failed_build_shows_what_go_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_go(tmp_path / "path", "#!/bin/sh\necho no such package\nexit 3\n", monkeypatch)
    with pytest.raises(BuildError, match=r"(?s)exit code 3.*no such package"):
        build.ensure(["etcd"], tmp_path / "cache")


def test_a_missing_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(build.ASSETS_VARIABLE, raising=False)
    with pytest.raises(BuildError, match="Install Go"):
        build.ensure(["etcd"], tmp_path / "cache")


# The processes


def _ends_soon(pid: int, *, timeout_s: float = 5) -> bool:
    """Whether process `pid` ends within the time; one that nobody has reaped yet has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_daemon_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    daemon = Daemon("sleep", [SLEEP, "60"], tmp_path / "log")
    thread = threading.Thread(target=daemon.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert daemon.is_running
    daemon.stop(grace_s=5)
    assert not daemon.is_running


def test_a_daemon_dies_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from controlplane.daemon import Daemon
daemon = Daemon("sleep", [{SLEEP!r}, "60"], pathlib.Path({str(tmp_path / "log")!r}))
daemon.start()
while "sleep" not in pathlib.Path(f"/proc/{{daemon.pid}}/comm").read_text():
    pass  # until the program itself runs
print(daemon.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(HACK)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert _ends_soon(int(done.stdout))


def test_a_dead_start_reports_its_log(tmp_path: Path) -> None:
    broken = _write_program(tmp_path / "etcd", "#!/bin/sh\necho the disk is on fire >&2\nexit 7\n")
    with pytest.raises(StartError, match=r"(?s)code 7.*etcd\.log.*the disk is on fire"):
        ControlPlane.start(tmp_path / "plane", binaries=replace(Binaries.find(), etcd=broken))


def test_a_taken_port_is_tried_again_on_others(tmp_path: Path) -> None:
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/tries\necho address already in use\nexit 1\n'
    unlucky = _write_program(tmp_path / "etcd", script)
    with pytest.raises(StartError, match="address already in use"):
        ControlPlane.start(tmp_path / "plane", binaries=replace(Binaries.find(), etcd=unlucky))
    assert len(set((tmp_path / "tries").read_text().splitlines())) == 3


# The server


def test_the_server_answers_over_verified_tls(plane: ControlPlane) -> None:
    assert plane.api.call("GET", "/readyz") == "ok"
    assert plane.api.call("GET", "/version")["gitVersion"].startswith("v1.")


def test_a_client_without_the_ca_refuses_the_server(plane: ControlPlane) -> None:
    with pytest.raises(urllib.error.URLError) as refused:
        urllib.request.urlopen(f"{plane.server_url}/readyz", timeout=5)
    assert isinstance(refused.value.reason, ssl.SSLCertVerificationError)


def test_an_unknown_token_is_refused(plane: ControlPlane) -> None:
    with pytest.raises(ApiError) as refused:
        Api(plane.server_url, plane.ca_file, "guessed").call("GET", "/api/v1/secrets")
    assert refused.value.code == 401


def test_an_account_without_a_role_is_forbidden_and_the_audit_log_says_so(
    plane: ControlPlane,
) -> None:
    kubeconfig = plane.kubeconfig_for("team-a", "nobody")
    mark = plane.audit.mark()
    with pytest.raises(KubectlError, match="Forbidden"):
        plane.run_kubectl(f"--kubeconfig={kubeconfig}", "get", "secrets", "any")
    user = "system:serviceaccount:team-a:nobody"
    (entry,) = _wait_for_entries(plane.audit, mark, user, resource="secrets")
    assert (entry.verb, entry.resource, entry.namespace, entry.name, entry.code) == (
        "get",
        "secrets",
        "team-a",
        "any",
        403,
    )
    assert datetime.datetime.now(datetime.UTC) - entry.received_at < datetime.timedelta(minutes=1)


def _wait_for_entries(audit: AuditLog, mark: int, user: str, resource: str) -> list[AuditEntry]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        entries = audit.entries(since=mark, where=lambda entry: entry.user == user)
        if found := [entry for entry in entries if entry.resource == resource]:
            return found
        time.sleep(0.02)
    return []


def test_a_token_file_can_be_replaced(plane: ControlPlane) -> None:
    kubeconfig = plane.kubeconfig_for("team-a", "rotating", token_file=True)
    whoami = [f"--kubeconfig={kubeconfig}", "auth", "whoami", "--output=name"]
    plane.run_kubectl(*whoami)
    token = kubeconfig.with_suffix(".token")
    token.write_text("worn out")
    with pytest.raises(KubectlError, match=r"Unauthorized|must be logged in"):
        plane.run_kubectl(*whoami)
    token.write_text(plane.token_for("team-a", "rotating"))
    plane.run_kubectl(*whoami)


def test_an_applied_crd_is_served_and_survives_restarts(plane: ControlPlane) -> None:
    plane.apply(CRD)
    plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "team-b"}})
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one"}}
    things = "/apis/example.com/v1/namespaces/team-b/things"
    plane.api.call("POST", things, thing)
    pids = plane.pids
    plane.restart_etcd(grace_s=0)
    plane.restart_apiserver(grace_s=0)
    assert {*plane.pids.values()}.isdisjoint(pids.values())
    plane.apply(CRD)  # waits until it is served, which a restart delays too
    assert [item["metadata"]["name"] for item in plane.api.call("GET", things)["items"]] == ["one"]


def test_stop_ends_every_process(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path, audit=Audit.NOTHING) as plane:
        pids = plane.pids
        assert len(pids) == 2
    assert all(_ends_soon(pid) for pid in pids.values())
    assert plane.pids == {}
    assert not plane.audit.file.exists()


# The command


def test_sigterm_ends_a_control_plane_that_a_script_started_with_an_ampersand() -> None:
    """Such a process is started with SIGINT ignored."""
    script = 'trap "" INT; exec "$@"'
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-m", "controlplane"]
    environment = {**os.environ, "PYTHONPATH": str(HACK)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("export KUBECONFIG=")
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("size", [0, 10, BLOCK_BYTES, 3 * BLOCK_BYTES])
def test_a_mark_in_the_audit_log_is_never_within_a_line_that_is_being_written(
    tmp_path: Path, size: int
) -> None:
    log = AuditLog(tmp_path / "audit.log")
    assert log.mark() == 0
    log.file.write_bytes(b"x" * size)
    assert log.mark() == 0
    log.file.write_bytes(b"{}\n" + b"x" * size)
    assert log.mark() == 3
