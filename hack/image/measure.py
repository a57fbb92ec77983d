"""What the image costs: its size, and the time from exec until a process has loaded everything."""

import gzip
import os
import statistics
import subprocess
import time
from pathlib import Path

from image.contract import ENTRIES, UID, USER
from image.tools import MEGABYTE, ImageError, need

# COSI_MEASURED_RUNS is for a test of the commands, which has no use for a median.
RUNS = int(os.environ.get("COSI_MEASURED_RUNS", "5"))
TIMEOUT_S = 60.0


def cold_starts_s(rootfs: Path, entry: str) -> list[float]:
    """Run `/entry --help` in new processes, inside the root filesystem; return the seconds of each.

    The flags are read after all modules are imported, so this is what a start costs before the
    first request. The files are in the page cache, as on a node that has run the image before.

    Raises:
        OSError, subprocess.SubprocessError: this machine does not let us run it.
    """
    if os.geteuid() == 0:
        enter = [need("chroot", package="coreutils"), f"--userspec={USER}", str(rootfs)]
    else:  # a user namespace gives the right to change the root, not to be another user
        enter = [need("unshare", package="util-linux"), "--map-root-user", f"--root={rootfs}"]
    return _times_s([*enter, f"/{entry}", "--help"])


def _times_s(command: list[str]) -> list[float]:
    took_s = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        subprocess.run(
            command,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        took_s.append(time.perf_counter() - started_s)
    return took_s


def report_peer(binary: Path) -> str:
    """Say in a line what another program costs, for instance the Go sidecar.

    Its size is that of the file, as it stands and as a layer of an image would carry it.

    Raises:
        ImageError: it can't be run.
    """
    try:
        content = binary.read_bytes()
        took_s = _times_s([str(binary), "--help"])
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"--peer {binary}: {error}") from None
    loaded = len(gzip.compress(content, mtime=0))
    return (
        f"{binary}: {loaded / MEGABYTE:.1f} MB to load, {len(content) / MEGABYTE:.1f} MB unpacked; "
        f"--help: {_seconds(took_s)}"
    )


def _seconds(took_s: list[float]) -> str:
    return (
        f"{statistics.median(took_s):.2f} s from exec to exit (median of {RUNS}, "
        f"slowest {max(took_s):.2f} s)"
    )


def report(rootfs: Path) -> list[str]:
    """Say in lines what `make image` prints about starting."""
    lines = []
    for entry in ENTRIES:
        try:
            took_s = cold_starts_s(rootfs, entry)
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", None) or str(error).encode()
            lines.append(f"/{entry} was not run, for that be root: {told.decode().strip()}")
            continue
        lines.append(
            f"/{entry} --help as user {UID if os.geteuid() == 0 else os.geteuid()}: "
            f"{_seconds(took_s)}"
        )
    return lines
