"""The Containerfile cannot be built without a registry, so what it says is compared here."""

import json
import re

import pytest

from image.contract import ENTRYPOINT, ENVIRONMENT, INPUTS, ROOT, USER, WORKING_DIRECTORY, identify

TEXT = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text())
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]
FINAL = STEPS[[step for step, _ in STEPS].index("FROM") + 1 :]
FINAL = FINAL[[step for step, _ in FINAL].index("FROM") :]


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
        ("ENV", " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())),
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
