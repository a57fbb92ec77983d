#!/usr/bin/env python3
"""Build the programs of the test control plane from their Go modules, once, into a cache.

    python3 hack/controlplane/build.py                          # the five that everybody needs
    python3 hack/controlplane/build.py kube-controller-manager  # one more, only by name
    python3 hack/controlplane/build.py promtool                 # what `make test` needs besides

The result is `.cache/bin/NAME`. Beside it, `NAME.stamp` holds the cache key: a hash of all that
decides what the binary is. While both are there and the key is the same, nothing is done.
Programs found in the folder that KUBEBUILDER_ASSETS names are used as they are, never built.

Standard library only, and no import of a sibling: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "bin"
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"

TAIL_LINES = 30
"""How much of a failed build's output the error shows."""


class BuildError(Exception):
    """A program cannot be built or found; the message says what to do, for a person to read."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program and where it comes from."""

    name: str
    """What the binary is called, here and in a KUBEBUILDER_ASSETS folder."""
    folder: str
    """The folder beside this file with the go.mod and go.sum that pin it."""
    module: str
    """The Go module whose version is the program's version; "" if its code is in `folder`."""
    package: str
    """The Go package to build."""
    expect_s: int
    """Seconds a first build takes on 2 cores, downloads included; for the screen only."""
    by_default: bool = True


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3", 35),
        Program(
            "kube-apiserver",
            "kubernetes",
            "k8s.io/kubernetes",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            160,
        ),
        Program("kubectl", "kubernetes", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kubectl", 20),
        Program("helm", "helm", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm", 50),
        Program(
            "kube-controller-manager",
            "kubernetes",
            "k8s.io/kubernetes",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            55,
            by_default=False,  # only for tests of garbage collection and namespace deletion
        ),
        # A node, only for `make e2e`.
        Program(
            "kubelet",
            "kubernetes",
            "k8s.io/kubernetes",
            "k8s.io/kubernetes/cmd/kubelet",
            45,
            by_default=False,
        ),
        Program(
            "kube-scheduler",
            "kubernetes",
            "k8s.io/kubernetes",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            20,
            by_default=False,
        ),
        Program(
            "kube-proxy",
            "kubernetes",
            "k8s.io/kubernetes",
            "k8s.io/kubernetes/cmd/kube-proxy",
            20,
            by_default=False,
        ),
        Program("pause", "pause", "", ".", 5, by_default=False),
        Program("kstatus", "kstatus", "sigs.k8s.io/cli-utils", ".", 60),
        Program(
            "crane",
            "crane",
            "github.com/google/go-containerregistry",
            "github.com/google/go-containerregistry/cmd/crane",
            30,
            by_default=False,  # a registry and its client, only for tests of the image
        ),
        Program(
            "krew",
            "krew",
            "sigs.k8s.io/krew",
            "sigs.k8s.io/krew/cmd/krew",
            20,
            by_default=False,  # only for the test of the krew manifest
        ),
        # Only for releases: the signatures, and a check of the forge's workflows.
        Program(
            "cosign",
            "cosign",
            "github.com/sigstore/cosign/v3",
            "github.com/sigstore/cosign/v3/cmd/cosign",
            180,
            by_default=False,
        ),
        Program(
            "actionlint",
            "actionlint",
            "github.com/rhysd/actionlint",
            "github.com/rhysd/actionlint/cmd/actionlint",
            10,
            by_default=False,
        ),
        Program(
            "promtool",
            "prometheus",
            "github.com/prometheus/prometheus",
            "github.com/prometheus/prometheus/cmd/promtool",
            160,
            by_default=False,  # only for tests of the alert rules, the dashboard and the metrics
        ),
    )
}

DEFAULT = [program.name for program in PROGRAMS.values() if program.by_default]


def pinned_version(go_mod: str, module: str) -> str:
    """Return the version, as in "v1.34.4", that a go.mod's text requires of `module`.

    Code without a separate module ("") has no version: v0.0.0.

    Raises:
        BuildError: the text requires no such module.
    """
    if not module:
        return "v0.0.0"
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise BuildError(f"no requirement of {module} in its go.mod")
    return found[1]


def linker_flags(program: Program, go_mod: str) -> str:
    """Return the value of -ldflags: no debug tables (faster, smaller), the version stamped in.

    Unstamped, the API server reports a version that kubectl cannot parse, and helm renders
    charts for Kubernetes 1.20.
    """
    version = pinned_version(go_mod, program.module)
    stamps: dict[str, str] = {}
    if program.module == "k8s.io/kubernetes":
        major, minor, _ = version.removeprefix("v").split(".", 2)
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            stamps[f"{package}.gitVersion"] = version
            stamps[f"{package}.gitMajor"] = major
            stamps[f"{package}.gitMinor"] = minor
            stamps[f"{package}.gitTreeState"] = "archive"
            stamps[f"{package}.gitCommit"] = ""  # a module carries no commit; empty = unknown
    if program.name == "helm":
        # client-go v0.N.x is the client of Kubernetes 1.N.
        minor = pinned_version(go_mod, "k8s.io/client-go").split(".")[1]
        stamps["helm.sh/helm/v3/internal/version.version"] = version
        for package in ("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"):
            stamps[f"{package}.k8sVersionMajor"] = "1"
            stamps[f"{package}.k8sVersionMinor"] = minor
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


def build_command(program: Program, go_mod: str, target: Path) -> list[str]:
    """Return the command line that builds `program` into `target`."""
    return [
        "go",
        "build",
        "-mod=readonly",  # go.mod and go.sum are the pin; a build must never edit them
        "-trimpath",
        f"-ldflags={linker_flags(program, go_mod)}",
        "-o",
        str(target),
        program.package,
    ]


def cache_key(program: Program, modules: Path = HERE) -> str:
    """Return a hash of all that decides what the binary is; a change of it means a new build.

    Args:
        program: what is built.
        modules: the folder that holds `program.folder`.
    Raises:
        BuildError: go.mod or go.sum cannot be read, or the program's module isn't in it.
    """
    folder = modules / program.folder
    try:
        go_mod = (folder / "go.mod").read_text()
        go_sum = (folder / "go.sum").read_text() if program.module else ""
    except OSError as error:
        raise BuildError(f"{program.name}: cannot read its pins: {error}") from error
    parts = [
        platform.system(),
        platform.machine(),
        go_mod,
        go_sum,
        *build_command(program, go_mod, Path(program.name)),
    ]
    own = folder / "main.go"  # kstatus and pause are more than somebody's package
    if own.is_file():
        parts.append(own.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_built(program: Program, cache: Path, key: str) -> bool:
    """Whether `cache` holds the program, built with this very key."""
    stamp = cache / f"{program.name}.stamp"
    return (cache / program.name).is_file() and stamp.is_file() and stamp.read_text() == key


def asset(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the program in the folder that KUBEBUILDER_ASSETS names, if it is there."""
    folder = environ.get(ASSETS_VARIABLE)
    if not folder or not (Path(folder) / name).is_file():
        return None
    return (Path(folder) / name).resolve()


def find(name: str, cache: Path = CACHE) -> Path:
    """Return the path of a program that is ready to run: KUBEBUILDER_ASSETS first, then the cache.

    Raises:
        BuildError: it isn't built, or its pins have changed since; the message says what to run.
    """
    if (given := asset(name)) is not None:
        return given
    if not is_built(PROGRAMS[name], cache, cache_key(PROGRAMS[name])):
        raise BuildError(
            f"{name} is not built, or older than its pins. "
            f"Run: python3 hack/controlplane/build.py {name}"
        )
    return cache / name


def ensure(names: Sequence[str], cache: Path = CACHE) -> None:
    """Build those of `names` that are neither given by KUBEBUILDER_ASSETS nor in the cache.

    Prints its progress. Safe when several processes call it at once: one builds, the others wait.
    Raises:
        BuildError: `go` is missing or failed; what was built until then stays.
    """
    ensure_programs([PROGRAMS[name] for name in names if asset(name) is None], cache)


def ensure_programs(programs: Sequence[Program], cache: Path) -> None:
    """Build those of `programs` that `cache` lacks; otherwise as `ensure`."""
    keys = {program: cache_key(program) for program in programs}
    if all(is_built(program, cache, key) for program, key in keys.items()):
        return
    with _lock(cache):
        # Asked again under the lock: whoever held it may have built them all.
        missing = [program for program, key in keys.items() if not is_built(program, cache, key)]
        for position, program in enumerate(missing, start=1):
            _build(program, cache, keys[program], f"[{position}/{len(missing)}]")


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Lock the cache. The kernel drops the lock with the process, however that ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another build is running; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, cache: Path, key: str, position: str) -> None:
    """Build one program; the binary and then its stamp appear only when it is complete."""
    if shutil.which("go") is None:
        raise BuildError(
            f"{program.name} has to be built from source and `go` is not on the PATH. Install Go "
            f"1.24 or newer, or set {ASSETS_VARIABLE} to a folder that holds the programs."
        )
    folder = HERE / program.folder
    go_mod = (folder / "go.mod").read_text()
    partial = cache / f"{program.name}.partial"
    log = cache / f"{program.name}.log"
    version = pinned_version(go_mod, program.module)
    label = f"{position} {program.name} {version}"
    _say(f"{label}: building; the first time takes about {_duration(program.expect_s)} on 2 cores")
    started = time.monotonic()
    code = _run_go(build_command(program, go_mod, partial), folder, log, label)
    if code != 0:
        raise BuildError(
            f"go could not build {program.name} (exit code {code}). Full output: {log}\n"
            + "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        )
    partial.replace(cache / program.name)
    (cache / f"{program.name}.stamp").write_text(key)
    _say(f"{label}: built in {_duration(time.monotonic() - started)}")


def _run_go(command: list[str], folder: Path, log: Path, label: str) -> int:
    """Run go in `folder` with its output in `log`, saying now and then that it still runs."""
    environ = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH")}
    environ["CGO_ENABLED"] = "0"  # as the official releases are; needs no C compiler
    environ["GOWORK"] = "off"  # a go.work in some parent folder would override the pins
    every_s = 1.0 if sys.stdout.isatty() else 30.0
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    return process.wait(timeout=every_s)
                except subprocess.TimeoutExpired:
                    _tick(f"{label}: {_duration(time.monotonic() - started)} so far")
        finally:
            if process.poll() is None:  # Ctrl-C here: go must not build on alone
                process.terminate()
                process.wait()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _say(text: str) -> None:
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    print(f"{clear}==> {text}", flush=True)


def _tick(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K    {text}", end="", flush=True)
    else:
        print(f"    {text}", flush=True)


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        description="Build the programs of the test control plane into .cache/bin.",
        epilog=f"Programs found in the folder {ASSETS_VARIABLE} names are used, not built.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"what to build, of: {', '.join(PROGRAMS)} (default: {', '.join(DEFAULT)})",
    )
    names = parser.parse_args().names or DEFAULT
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PROGRAMS)}")
    try:
        ensure(names)
        for name in names:
            print(find(name))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was built until now is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
