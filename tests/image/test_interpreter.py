"""Which Python goes into the image: pinned, and without a defect that the list names."""

import json
from pathlib import Path
from typing import Any

import pytest

from image.archive import ARCHITECTURES, NAMES, Apt, choose
from image.tools import ImageError
from image.vulnerable import INTERPRETER, LOCK, defects, known_defects, release

KNOWN: dict[str, Any] = {
    "fixed": {"3.13.1": {"CVE-1": "one"}, "3.13.10": {"CVE-2": "two", "CVE-3": "three"}},
    "allowed": {},
}


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("3.13.0", ["CVE-1", "CVE-2", "CVE-3"]),
        ("3.13.9-2+deb13u1", ["CVE-2", "CVE-3"]),
        ("3.13.10-1", []),
        ("3.13.11", []),
    ],
)
def test_a_version_has_the_defects_that_were_fixed_after_it(version: str, found: list[str]) -> None:
    assert [defect.split()[0] for defect in defects(version, KNOWN)] == found


def test_an_allowed_defect_needs_a_row_and_a_reason() -> None:
    allowed = {**KNOWN, "allowed": {"CVE-2": "the module is not in the image"}}
    assert [line.split()[0] for line in defects("3.13.9", allowed)] == ["CVE-3"]
    for wrong in ({"CVE-2": " "}, {"CVE-9": "a reason"}):
        with pytest.raises(ValueError, match="needs a row"):
            defects("3.13.9", {**KNOWN, "allowed": wrong})


def test_the_list_knows_the_defects_of_the_first_release() -> None:
    assert len(known_defects("3.13.0")) > 40
    assert any("CVE-2024-12254" in line for line in known_defects("3.13.1"))


def test_every_architecture_pins_all_packages_and_no_defect() -> None:
    packages = json.loads(LOCK.read_text())["packages"]
    assert set(packages) == set(ARCHITECTURES.values())
    for pins in packages.values():
        assert tuple(pins) == NAMES
        assert all(len(pin["sha256"]) == 64 for pin in pins.values())
        assert known_defects(pins[INTERPRETER]["version"]) == []
        assert release(pins[INTERPRETER]["version"]) >= (3, 13, 18)


def test_when_a_pin_has_left_the_mirror_the_newest_is_taken_unless_pins_are_binding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pinned = {"libc6": {"version": "2.43-7", "sha256": "a"}}
    offered = {"libc6": {"version": "2.43-8", "sha256": "b"}}
    assert choose(pinned, pinned, strict=True) == pinned
    assert capsys.readouterr().err == ""
    assert choose(pinned, offered, strict=False) == offered
    assert "libc6 2.43-7 -> 2.43-8" in capsys.readouterr().err
    with pytest.raises(ImageError, match=r"libc6 2\.43-7 -> 2\.43-8"):
        choose(pinned, offered, strict=True)


def test_packages_that_another_process_has_fetched_meanwhile_are_not_asked_for(
    tmp_path: Path,
) -> None:
    Apt.download(object.__new__(Apt), {}, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
