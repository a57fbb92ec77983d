"""Which known defects an interpreter has, by the list in fixed.toml."""

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIST = HERE / "fixed.toml"
LOCK = HERE / "interpreter.json"
INTERPRETER = "python3.13-minimal"
_RELEASE = re.compile(r"\d+\.\d+\.\d+")


def release(version: str) -> tuple[int, ...]:
    """The numbers of a Python release; Debian's revision (3.13.18-1) is left out.

    Raises:
        ValueError: it is not the version of a release.
    """
    found = _RELEASE.match(version)
    if found is None:
        raise ValueError(f"{version!r} is not a version of Python")
    return tuple(map(int, found[0].split(".")))


def defects(version: str, known: Mapping[str, Any]) -> list[str]:
    """The known defects of a version, in words; none of those that are allowed with a reason.

    Raises:
        ValueError: an allowed defect has no reason or is not in the list.
    """
    allowed = known.get("allowed", {})
    rows = {name for fixed in known["fixed"].values() for name in fixed}
    for name, reason in allowed.items():
        if name not in rows or not str(reason).strip():
            raise ValueError(f"{LIST.name}: allowed.{name} needs a row in `fixed` and a reason")
    return [
        f"{name} (fixed in {first}): {what}"
        for first, fixed in known["fixed"].items()
        for name, what in fixed.items()
        if release(version) < release(first) and name not in allowed
    ]


def known_defects(version: str) -> list[str]:
    """The defects of a version by the list in the repository."""
    return defects(version, tomllib.loads(LIST.read_text("utf-8")))


def main() -> int:
    """Check what the lock pins, for every architecture."""
    found = {
        f"{architecture}: {packages[INTERPRETER]['version']} has {defect}"
        for architecture, packages in json.loads(LOCK.read_text("utf-8"))["packages"].items()
        for defect in known_defects(packages[INTERPRETER]["version"])
    }
    for line in sorted(found):
        print(line, file=sys.stderr)
    if found:
        print("run hack/update-interpreter, or see hack/image/fixed.toml", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
