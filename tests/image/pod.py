"""Run a program of the image as a kubelet would have it run, without a container runtime.

The rules of docs/image.md hold for it: the root filesystem is read-only, the user is 65532 and has
no capabilities, the driver's folder is at /var/lib/cosi, the ServiceAccount's files are where a
Pod finds them. Only the mounts are private; network and process ids are the machine's, which the
test's API server on loopback needs.
"""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.contract import USER

SERVICE_ACCOUNT = "run/secrets/kubernetes.io/serviceaccount"
EMPTY_DIR = "var/lib/cosi"
PROGRAMS = ("unshare", "chroot", "mount", "sh")

# $1 the root, $2 the ServiceAccount's folder, $3 the emptyDir, then the command. `exec` all
# along: the process that was started is the one that runs in the end, and gets the signals.
_ENTER = f"""
root=$1 account=$2 shared=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$account" "$root/{SERVICE_ACCOUNT}"
mount --bind "$shared" "$root/{EMPTY_DIR}"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot --userspec={USER} --groups= "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Pod:
    """One root filesystem and what is mounted into it.

    Args:
        rootfs: unpacked layers, see `unpack`.
        account: a folder with token, ca.crt and namespace.
        shared: what is mounted at /var/lib/cosi.
        config: of the image, the part named `config`.
    """

    rootfs: Path
    account: Path
    shared: Path
    config: Mapping[str, Any]

    def command(self, program: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Return what to start instead of `program`; the image's own variables go last."""
        variables = {
            **dict(line.split("=", 1) for line in self.config["Env"]),
            **environment,
        }
        return [
            _program("unshare"), "--mount", "--propagation=private", "--",
            _program("sh"), "-euc", _ENTER, "pod",
            str(self.rootfs), str(self.account), str(self.shared),
            *(_within(self.rootfs, program, variables)),
        ]  # fmt: skip

    def run(self, *program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self.command(program, environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def _within(rootfs: Path, program: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    # The image has no `env`, so Python sets the variables, looks in PATH as a runtime does, and is
    # then replaced by the program.
    assert (rootfs / "usr/bin/python3").exists()
    code = "import os, sys; n = sys.argv.index('--'); pairs = sys.argv[1:n]; argv = sys.argv[n+1:]"
    code += "\nos.execvpe(argv[0], argv, dict(p.split('=', 1) for p in pairs))"
    pairs = [f"{name}={value}" for name, value in variables.items()]
    return ["/usr/bin/python3", "-ISc", code, *pairs, "--", *program]


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"`{name}` is missing: install the packages util-linux and coreutils"
    return found


def require_rights() -> None:
    """Say clearly why nothing can be run here; mounting and changing the root needs root.

    Raises:
        AssertionError: this is not root, or the machine allows no mounts.
    """
    assert os.geteuid() == 0, "this test mounts and changes the root: run it as root"
    tried = subprocess.run(
        [
            _program("unshare"), "--mount", "--propagation=private",
            _program("mount"), "-t", "tmpfs", "none", "/mnt",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.returncode == 0, f"this machine allows no mounts: {tried.stderr.strip()}"


def unpack(layers: Sequence[Path], target: Path) -> Path:
    """Unpack layers over each other with owners and modes, and add a runtime's mount points."""
    target.mkdir()
    for layer in layers:
        with tarfile.open(layer) as archive:
            # These are our own layers; the filters would drop the modes that a runtime keeps.
            archive.extractall(target, numeric_owner=True, filter="fully_trusted")
    (target / SERVICE_ACCOUNT).mkdir(parents=True, exist_ok=True)
    return target
