"""`make cut`, `make release` and `make publish`: see docs/release.md."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from controlplane.build import BuildError, ensure
from image.tools import ImageError
from metadata import MetadataError
from release.build import build, every_architecture, prepare
from release.changelog import cut, update_made_files
from release.publish import publish
from release.tools import DIST, ROOT, ReleaseError, files, run


def main() -> None:
    """Read the command line and do one step."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("cut", "build", "publish"):
        step = steps.add_parser(name)
        step.add_argument("--version", required=True, help="as in 1.2.3")
        if name != "cut":
            step.add_argument("--registry", default="", help="instead of that in publisher.toml")
            step.add_argument("--key", default="", help="what cosign signs with")
            step.add_argument("--output", type=Path, default=DIST, help="folder (%(default)s)")
    steps.choices["build"].add_argument(
        "--architecture", action="append", choices=every_architecture(), help="(all)"
    )
    given = parser.parse_args()
    try:
        _do(given)
    except (BuildError, ImageError, MetadataError, ReleaseError) as error:
        sys.exit(f"release: {error}")


def _do(given: argparse.Namespace) -> None:
    if given.step == "cut":
        ensure(["helm"])
        gone = cut(given.version, datetime.now(UTC).date().isoformat())
        update_made_files()
        print(f"{len(gone)} fragments are in CHANGELOG.md now. Read it, then commit:")
        print(run("git", "diff", "--stat", directory=ROOT).strip().rpartition("\n")[2].strip())
        return
    release = prepare(given.version, given.registry)
    if given.step == "build":
        ensure(["helm"])
        build(release, given.output, tuple(given.architecture or every_architecture()), given.key)
        for file in files(given.output):
            print(f"{file.stat().st_size:>12}  {file.name}")
        if not given.key:
            print("Not signed, because no KEY is given.")
        return
    for address in publish(release, given.output, given.key):
        print(address)


if __name__ == "__main__":
    main()
