"""A registry for images and charts on loopback, by crane."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.build import ensure, find
from controlplane.daemon import Daemon

START_TIMEOUT_S = 10.0


def crane() -> Path:
    """The program; the first call on a machine builds it, which takes about 30 s."""
    ensure(["crane"])
    return find("crane")


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """An empty registry; its address is host:port, without TLS. Its log is in `directory`."""
    log = directory / "registry.log"
    daemon = Daemon("registry", [str(crane()), "registry", "serve", "--address=127.0.0.1:0"], log)
    daemon.start()
    try:
        daemon.wait_until(lambda: "serving on port" in log.read_text(), timeout_s=START_TIMEOUT_S)
        yield f"127.0.0.1:{re.findall(r'serving on port (\d+)', log.read_text())[0]}"
    finally:
        daemon.stop(grace_s=0)
