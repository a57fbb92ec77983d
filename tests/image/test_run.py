"""Both processes of the image, run as in a Pod, against a real API server and a driver."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image.pod import Pod

from controlplane.daemon import Daemon
from testbed import Testbed

pytestmark = pytest.mark.timeout(180)  # whichever test is first builds the image

MEMORY_LIMIT_KIB = 128 * 1024  # the smallest limit in charts of real drivers

IMPORTS = """
import importlib, importlib.util, pkgutil, cosi_operator, uvloop, aiohttp, opentelemetry.sdk
assert importlib.util.find_spec("kr8s") is None
names = [found.name for found in pkgutil.walk_packages(cosi_operator.__path__, "cosi_operator.")]
imported = 0
for name in names:
    try:
        name.endswith("__main__") or importlib.import_module(name)
        imported += 1
    except ModuleNotFoundError as error:  # the SDK, and commands that need a cluster
        assert error.name in ("kr8s", "httpx"), error
        assert name.startswith(("cosi_operator.sdk.", "cosi_operator.cli.")), name
print(imported)
"""
CERTIFICATES = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
WHERE_IT_MAY_WRITE = """
import os, tempfile
for root, folders, _ in os.walk("/"):
    folders[:] = [name for name in folders if root != "/" or name not in ("proc", "dev")]
    try:
        tempfile.TemporaryFile(dir=root).close()
    except OSError:
        continue
    print(root)
print(os.getuid(), os.getgid(), os.getgroups())
print(open("/proc/self/status").read())
"""


@pytest.fixture(scope="module")
def bed(pod: Pod) -> Iterator[Testbed]:
    """The world of the two processes, without them; a short folder, for the socket's path."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as bed,
    ):
        # An emptyDir holds the driver's socket alone; to the sidecar's user it must be writable.
        socket = bed.driver.socket_path
        socket.chmod(0o666)
        os.link(socket, pod.shared / "cosi.sock")
        yield bed
        bed.stop_operator()
        (pod.shared / "cosi.sock").unlink()


@pytest.mark.parametrize("entry", ["sidecar", "controller", "cosi"])
def test_each_entry_runs_without_a_shell(pod: Pod, entry: str) -> None:
    done = pod.run(f"/{entry}", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: cosi" in done.stdout


def test_a_command_that_needs_a_cluster_says_how_to_install_it(pod: Pod) -> None:
    done = pod.run("/cosi", "status")
    assert done.returncode == 2
    assert done.stderr.endswith("run: pip install 'cosi-operator[cli]'\n")
    shown = pod.run("/cosi", "policy", "show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "INTERNAL" in shown.stdout


def test_the_version_is_that_of_the_label(pod: Pod) -> None:
    done = pod.run("/sidecar", "--version")
    assert done.stdout.split()[-1] == pod.config["Labels"]["org.opencontainers.image.version"]


def test_a_variable_of_the_pod_changes_nothing_that_is_run(pod: Pod) -> None:
    (pod.shared / "structlog.py").write_text("raise SystemExit('not the locked one')")
    try:
        done = pod.run("/sidecar", "--version", PYTHONPATH="/var/lib/cosi", PYTHONHOME="/nowhere")
    finally:
        (pod.shared / "structlog.py").unlink()
    assert (done.returncode, done.stderr) == (0, "")


def test_every_module_of_the_operator_and_its_libraries_is_imported(pod: Pod) -> None:
    done = pod.run("/usr/bin/python3", "-Ic", IMPORTS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_public_certificate_authorities_are_known(pod: Pod) -> None:
    assert int(pod.run("/usr/bin/python3", "-Ic", CERTIFICATES).stdout) > 50


def test_the_pod_here_may_write_to_the_emptydir_alone(pod: Pod) -> None:
    os.chown(pod.shared, 65532, 65532)
    done = pod.run("/usr/bin/python3", "-Ic", WHERE_IT_MAY_WRITE)
    assert done.returncode == 0, done.stderr
    folder, user, *status = done.stdout.splitlines()
    assert (folder, user) == ("/var/lib/cosi", "65532 65532 []")
    assert "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize(
    ("question", "code"),
    [
        pytest.param("-S /var/lib/cosi/cosi.sock", 0, id="the probe of VAST's chart"),
        pytest.param("-S /var/lib/cosi/none.sock", 1, id="no such file"),
        pytest.param("-S /usr/bin/python3", 1, id="no socket"),
        pytest.param("-d /var/lib/cosi", 0, id="a folder"),
        pytest.param("-f /sidecar", 0, id="a file"),
        pytest.param("-e /sidecar", 0, id="anything"),
        pytest.param("-n text", 2, id="not about a file"),
        pytest.param("", 2, id="no question"),
    ],
)
def test_probes_of_vendors_find_their_program(
    pod: Pod, bed: Testbed, question: str, code: int
) -> None:
    assert bed.driver.socket_path.exists()
    done = pod.run("test", *question.split())
    assert done.returncode == code
    assert bool(done.stderr) == (code == 2)


def test_a_claim_becomes_ready_and_goes_again(pod: Pod, bed: Testbed) -> None:
    start_sidecar(pod, bed)
    start_controller(pod, bed)
    bed.until_leading()
    bed.make_classes("gold")
    bed.make_claims(["one"], class_name="gold")
    bed.make_accesses(["one"], class_name="gold")
    bed.until_ready("bucketclaims", ["one"])
    bed.until_ready("bucketaccesses", ["one"])
    assert bed.bucket_of("one")["status"]["bucketReady"] is True
    for process in bed.processes.values():
        assert peak_kib(process) < MEMORY_LIMIT_KIB
    bed.delete("bucketaccesses", "one")
    bed.delete("bucketclaims", "one")
    bed.until_gone("bucketaccesses", ["one"])
    bed.until_gone("bucketclaims", ["one"])
    assert bed.forbidden() == []
    assert [file.name for file in pod.shared.iterdir()] == ["cosi.sock"]

    bed.stop_operator()  # SIGTERM reaches the process itself: nothing stands between
    for role in ("sidecar", "controller"):
        assert json.loads(bed.log_of(role).splitlines()[-1])["event"] == "stopped"
        assert not bed.plane.api.call("GET", bed.lease_path(role))["spec"].get("holderIdentity")


def start_sidecar(pod: Pod, bed: Testbed) -> None:
    """As a driver's chart does: no argument at all, the Pod's own ServiceAccount."""
    space, name = bed.accounts["sidecar"]
    (pod.account / "token").write_text(bed.plane.token_for(space, name))
    (pod.account / "namespace").write_text(space)
    shutil.copyfile(bed.plane.ca_file, pod.account / "ca.crt")
    for file in pod.account.iterdir():
        file.chmod(0o644)
    host, _, port = bed.plane.server_url.removeprefix("https://").partition(":")
    variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    start(bed, "sidecar", pod.command(pod.config["Entrypoint"], variables))


def start_controller(pod: Pod, bed: Testbed) -> None:
    """With a kubeconfig, which it finds where only it may read."""
    space, name = bed.accounts["controller"]
    kubeconfig = pod.account / "kubeconfig"
    shutil.copyfile(bed.plane.kubeconfig_for(space, name), kubeconfig)
    kubeconfig.chmod(0o600)
    os.chown(kubeconfig, 65532, 65532)
    path = "/var/run/secrets/kubernetes.io/serviceaccount/kubeconfig"
    command = ["/controller", f"--kubeconfig={path}"]
    start(bed, "controller", pod.command(command, {"POD_NAMESPACE": space}))


def start(bed: Testbed, role: str, command: list[str]) -> None:
    """Start a process; the testbed ends it, and shows its log when a wait was in vain."""
    process = Daemon(f"cosi-{role}", command, bed.directory / f"cosi-{role}.log")
    process.start()
    bed.processes[role] = process


def peak_kib(process: Daemon) -> int:
    """The most memory that it had at any time."""
    found = re.search(
        r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1])
