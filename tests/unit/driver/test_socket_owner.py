"""The owner of the socket is looked at: root and our own user are expected, others are told."""

import os
import socket
from pathlib import Path

import pytest

from cosi_operator.driver.channel import DriverChannel


@pytest.mark.parametrize(
    ("offset", "told"),
    [pytest.param(0, False, id="our own user"), pytest.param(1, True, id="another user")],
)
def test_a_socket_of_another_user_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, told: bool
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, 4321, 4321)
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + offset)
        assert DriverChannel(f"unix://{path}").foreign_owner() == (owner if told else None)


def test_no_socket_has_no_owner(tmp_path: Path) -> None:
    assert DriverChannel(f"unix://{tmp_path}/none").foreign_owner() is None
