"""What the Containerfile says; and what it builds (`make containerfile`), beside `make image`."""

import hashlib
import json
import re
import tarfile
from dataclasses import replace

import pytest
from tests.image.conftest import Built, Layout

from image import containerfile
from image.contract import ENTRYPOINT, INPUTS, ROOT, USER, WORKING_DIRECTORY, identify
from image.sbom import PLACE
from image.tools import ImageError

TEXT = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text())
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]
FINAL = STEPS[[step for step, _ in STEPS].index("FROM") + 1 :]
FINAL = FINAL[[step for step, _ in FINAL].index("FROM") :]

IN_A_BUILD = replace(identify(), revision="${REVISION}")


def last(name: str) -> str:
    """The argument of the only such step in the final stage."""
    [found] = [argument for step, argument in FINAL if step == name]
    return found


def test_the_files_come_from_the_script_that_make_image_runs() -> None:
    assert ["RUN", "PYTHONPATH=hack python -m image.rootfs /rootfs"] in STEPS
    assert last("FROM") == "scratch"
    assert last("COPY") == "--from=builder /rootfs/ /"
    assert [argument for step, argument in FINAL if step in ("RUN", "ADD")] == []


def test_all_that_the_script_reads_is_copied_to_it() -> None:
    copied = {
        name.rstrip("/")
        for step, argument in STEPS
        if step == "COPY" and not argument.startswith("--from")
        for name in argument.split()[:-1]
    }
    assert copied == set(INPUTS)


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ("USER", USER),
        ("WORKDIR", WORKING_DIRECTORY),
        ("ENTRYPOINT", json.dumps(ENTRYPOINT)),
        ("ENV", " ".join(f"{n}={v}" for n, v in IN_A_BUILD.environment().items())),
    ],
)
def test_both_ways_promise_the_same(step: str, value: str) -> None:
    assert last(step) == value


def test_both_ways_set_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_SOURCE", "somewhere")
    identity = identify()
    said = dict(re.findall(r'(org\.opencontainers\.image\.\w+)="([^"]*)"', last("LABEL")))
    assert said.keys() == identity.labels().keys()
    fixed = {name: value for name, value in said.items() if "$" not in value}
    assert fixed.items() <= identity.labels().items()
    assert {value.strip("${}") for value in said.values() if "$" in value} == {
        argument.partition("=")[0] for step, argument in FINAL if step == "ARG"
    }


def test_what_is_lacking_for_a_build_of_the_containerfile_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageError, match=r"takes root, .*; and Debian sarge; and Python 2\.3 "):
        containerfile.require("2.3", "sarge")


MAY_DIFFER = re.compile(re.escape(str(PLACE)))
"""The bill of materials: it has the time of the build."""


def files(image: Layout) -> dict[str, tuple[object, ...]]:
    """Each file with mode, owner and time; and with its content, where that must be the same."""
    found: dict[str, tuple[object, ...]] = {}
    for layer in image.layers:
        with tarfile.open(layer) as archive:
            for member in archive:
                content = b""
                if member.isreg() and not MAY_DIFFER.match(member.name):
                    opened = archive.extractfile(member)
                    assert opened
                    content = opened.read()
                found[member.name] = (
                    member.type, oct(member.mode & 0o7777), member.uid, member.gid, member.mtime,
                    member.linkname, hashlib.sha256(content).hexdigest(),
                )  # fmt: skip
    return found


@pytest.mark.containerfile
@pytest.mark.timeout(180)
def test_what_it_builds_has_the_files_of_make_image(built: Built, shipped: Layout) -> None:
    ours, theirs = files(built), files(shipped)
    assert theirs.keys() == ours.keys()
    assert {name: theirs[name] for name in ours if theirs[name] != ours[name]} == {}


@pytest.mark.containerfile
def test_what_it_builds_keeps_the_contract(shipped: Layout) -> None:
    identity, config = identify(), shipped.config["config"]
    labels = {**identity.labels(), "org.opencontainers.image.source": identity.source}
    assert labels.items() <= config["Labels"].items()
    assert config["Env"] == [f"{n}={v}" for n, v in identity.environment().items()]
    assert (config["User"], config["Entrypoint"]) == (USER, ENTRYPOINT)
