"""The API server of one Kubernetes minor, and the table of the minors that the tests ran against.

    PYTHONPATH=hack python -m controlplane.minor pin 1.31        # its newest patch: minors/1.31
    PYTHONPATH=hack python -m controlplane.minor build 1.31      # .cache/bin/kubernetes-1.31
    PYTHONPATH=hack python -m controlplane.minor record 1.31 r.xml  # a row of the support matrix

`make minor KUBERNETES=1.31` calls `build`, and the tests with the built folder as
KUBEBUILDER_ASSETS. `build` pins a minor that has no pin yet.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from controlplane.build import (
    CACHE,
    HERE,
    PROGRAMS,
    BuildError,
    Program,
    ensure_programs,
    pinned_version,
)

MODULE = "k8s.io/kubernetes"
MINORS = HERE / "minors"
TABLE = HERE.parents[1] / "docs" / "support-matrix.md"
BEGIN = "<!-- made by `make minor UPDATE=1` and `make minors`: do not edit -->\n\n"
END = "\n<!-- end of the made part -->"


def newest_patch(versions: str, minor: str) -> str:
    """Return the newest release, as in "v1.31.14", of the versions that `go list -m` printed.

    Raises:
        BuildError: the minor has no release among them.
    """
    patches = re.findall(rf"\bv{re.escape(minor)}\.(\d+)(?!\S)", versions)
    if not patches:
        raise BuildError(f"the Go module proxy has no release of Kubernetes {minor}")
    return f"v{minor}.{max(map(int, patches))}"


def go_mod(of_kubernetes: str, version: str) -> str:
    """Return the go.mod that builds Kubernetes as a dependency, outside of its source tree.

    Kubernetes names its staging modules as folders of that tree. Each gets its published version
    here, which is v0 + the same minor and patch.

    Args:
        of_kubernetes: the go.mod of the module k8s.io/kubernetes in that version.
        version: as in "v1.31.14".
    Raises:
        BuildError: no staging module was found, so the file has another form than known.
    """
    language = re.findall(r"(?m)^(?:go|godebug) \S.*$", of_kubernetes)
    staging = re.findall(r"(?m)^\s*(?:replace )?(k8s\.io/\S+) => \./staging/", of_kubernetes)
    if not staging:
        raise BuildError(f"the go.mod of Kubernetes {version} names no staging module")
    published = version.replace("v1.", "v0.", 1)
    return "\n".join(
        [
            "// Made by hack/controlplane/minor.py: do not edit.",
            f"module controlplane/kubernetes-{version.rpartition('.')[0].removeprefix('v')}",
            "",
            *language,
            "",
            f"require {MODULE} {version}",
            "",
            "replace (",
            *(f"\t{name} => {name} {published}" for name in staging),
            ")",
            "",
        ]
    )


def program(minor: str) -> Program:
    """Return the API server of a minor, as the builder knows its programs."""
    return replace(PROGRAMS["kube-apiserver"], folder=f"minors/{minor}")


def pin(minor: str) -> None:
    """Write minors/MINOR/go.mod and go.sum for the newest patch that the Go module proxy serves."""
    folder = MINORS / minor
    version = newest_patch(_go("list", "-m", "-versions", MODULE), minor)
    file = _go("mod", "download", "-json", f"{MODULE}@{version}")
    (of_kubernetes,) = re.findall(r'"GoMod": "(.+)"', file)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "go.mod").write_text(go_mod(Path(of_kubernetes).read_text("utf-8"), version))
    (folder / "go.sum").unlink(missing_ok=True)
    # Loads all packages of the API server, which notes the hash of every module it needs.
    _go("list", "-mod=mod", "-deps", PROGRAMS["kube-apiserver"].package, folder=folder)
    print(f"==> pinned Kubernetes {version} in {folder}")


def build(minor: str) -> None:
    """Build a minor's API server into .cache/bin/kubernetes-MINOR, from its pins."""
    if not (MINORS / minor / "go.sum").is_file():
        pin(minor)
    ensure_programs([program(minor)], CACHE / f"kubernetes-{minor}")


def row(version: str, report: str, date: str, commit: str) -> str:
    """Return a minor's row of the table.

    Args:
        version: as in "v1.31.14".
        report: what pytest wrote with --junitxml.
        date: of the run.
        commit: that was tested.
    """
    (suite,) = ElementTree.fromstring(report).iter("testsuite")
    tests, skipped, failures, errors = (
        int(suite.attrib[name]) for name in ("tests", "skipped", "failures", "errors")
    )
    failed = failures + errors
    passed = tests - skipped - failed
    return f"| {version.removeprefix('v')} | {passed} | {failed} | {date} | {commit} |"


def with_row(page: str, new: str) -> str:
    """Return the page with the row in its table, newest Kubernetes first.

    Raises:
        BuildError: the page lacks the marks around the table.
    """
    before, begin, rest = page.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise BuildError(f"{TABLE.name} needs {BEGIN.strip()!r} and then {END.strip()!r}")
    head, line, *rows = table.splitlines()
    by_minor = {_minor(each): each for each in [*rows, new]}
    ordered = [by_minor[minor] for minor in sorted(by_minor, reverse=True)]
    return before + begin + "\n".join([head, line, *ordered, ""]) + end + after


def _minor(table_row: str) -> tuple[int, int]:
    major, minor = table_row.removeprefix("| ").split(".")[:2]
    return int(major), int(minor)


def record(minor: str, report: Path) -> None:
    """Write the result of a run against a minor into the support matrix."""
    version = pinned_version((MINORS / minor / "go.mod").read_text("utf-8"), MODULE)
    commit = _run("git", "describe", "--always", "--dirty", "--exclude=*", folder=HERE).strip()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = row(version, report.read_text("utf-8"), today, commit)
    TABLE.write_text(with_row(TABLE.read_text("utf-8"), new), "utf-8")
    print(new)


def _go(*arguments: str, folder: Path = HERE / "kubernetes") -> str:
    return _run("go", *arguments, folder=folder)


def _run(*command: str, folder: Path) -> str:
    environ = {**os.environ, "GOWORK": "off"}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="The API server of one Kubernetes minor.")
    parser.add_argument("action", choices=("pin", "build", "record"))
    parser.add_argument("minor", help="as in 1.31")
    parser.add_argument("report", nargs="?", type=Path, help="of `record`: pytest's --junitxml")
    arguments = parser.parse_args()
    if not re.fullmatch(r"1\.\d+", arguments.minor):
        parser.error(f"not a minor of Kubernetes, as in 1.31: {arguments.minor!r}")
    try:
        if arguments.action == "record":
            if arguments.report is None:
                parser.error("record needs the report")
            record(arguments.minor, arguments.report)
        else:
            {"pin": pin, "build": build}[arguments.action](arguments.minor)
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
