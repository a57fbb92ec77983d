"""Which Python goes into the image: pinned, and without a defect that the list names."""

import json
from pathlib import Path
from typing import Any

import pytest

from image.archive import ARCHITECTURES, NAMES, Apt, Package, choose
from image.interpreter import Base
from image.interpreter import _needed as libraries_needed
from image.rootfs import _compiler as compiler_of
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


def test_a_python_of_another_architecture_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    package = Package(INTERPRETER, "3.13.18-1", "arm64", Path("python.deb"))
    base = Base(Path("/nowhere"), (package,), {})
    assert base.libraries == Path("/nowhere/usr/lib/aarch64-linux-gnu")
    with pytest.raises(ImageError, match="a Python for arm64 can't be run here"):
        base.python("-V")


def test_bytecode_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    ours, theirs = (
        Base(tmp_path, (Package(INTERPRETER, f"3.13.{patch}-1", kind, tmp_path),), {})
        for patch, kind in ((17, "amd64"), (18, "arm64"))
    )
    monkeypatch.setattr("image.rootfs.fetch", list)
    monkeypatch.setattr("image.rootfs.unpack", lambda packages, folder: ours)
    assert compiler_of(ours, tmp_path) is ours
    with pytest.raises(ImageError, match=r"3\.13\.17 of this machine .* 3\.13\.18 of arm64"):
        compiler_of(theirs, tmp_path)


@pytest.mark.parametrize(
    ("present", "found"),
    [
        pytest.param(["own/libx.so"], "own/libx.so", id="in the folder that the file names"),
        pytest.param(["usr/lib/aarch64-linux-gnu/libx.so"], "usr/lib/aarch64-linux-gnu/libx.so",
                     id="else among the pinned packages"),
        pytest.param([], None, id="nowhere -> refused"),
    ],
)  # fmt: skip
def test_a_library_is_found_without_running_anything(
    tmp_path: Path, present: list[str], found: str | None
) -> None:
    base = Base(tmp_path, (Package(INTERPRETER, "3.13.18-1", "arm64", tmp_path),), {})
    for name in present:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    listed = (
        f"\nFile: {tmp_path}/module.so\n\nDynamic section at offset 0x19 contains 2 entries:\n"
        " 0x0000000000000001 (NEEDED)             Shared library: [libx.so]\n"
        " 0x000000000000001d (RUNPATH)            Library runpath: [$ORIGIN/own]\n"
    )
    if found is None:
        with pytest.raises(ImageError, match=r"module\.so needs libx\.so, which no pinned"):
            list(libraries_needed(base, listed))
    else:
        assert list(libraries_needed(base, listed)) == [tmp_path / found]
