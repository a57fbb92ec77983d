"""What the image costs is shown beside another program, if one is given."""

import re
from pathlib import Path

import pytest

from image.measure import report_peer
from image.tools import ImageError


def test_a_peer_is_measured_by_its_own_help(tmp_path: Path) -> None:
    peer = tmp_path / "peer"
    peer.write_text(f'#!/bin/sh\n# {"x" * 2_000_000}\ntest "$1" = --help\n')
    peer.chmod(0o755)
    assert re.fullmatch(
        rf"{peer}: 0\.0 MB to load, 2\.0 MB unpacked; --help: \d+\.\d\d s from exec to exit"
        r" \(median of 5, slowest \d+\.\d\d s\)",
        report_peer(peer),
    )


def test_a_peer_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    for name in ("text", "missing"):
        with pytest.raises(ImageError, match=rf"--peer .*{name}"):
            report_peer(tmp_path / name)
