"""The image's Python and C libraries: Debian packages, pinned by version and digest.

interpreter.json names them for each architecture. They come from the Debian mirror that this
machine's apt already uses, by a separate apt (own sources, lists and cache), so nothing is
installed here and no right is needed. apt checks Debian's signature, and the digest must be the
pinned one.

Debian's unstable suite keeps only the newest version of a package. If a pinned version has left the
mirror, the newest one is taken instead, with a warning, unless the interpreter in it has a known
defect (fixed.toml) or COSI_IMAGE_PINNED=1 is set, as it should be for a release. To pin what the
mirror has now, run hack/update-interpreter.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from image.contract import ROOT
from image.tools import ImageError, need, run
from image.vulnerable import INTERPRETER, LOCK, known_defects

SUITE = "sid"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CACHE = ROOT / ".cache" / "debian"
STRICT = "COSI_IMAGE_PINNED"
NAMES = (
    INTERPRETER, "libpython3.13-minimal", "libpython3.13-stdlib", "base-files", "libbz2-1.0",
    "libc6", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libssl3t64", "libstdc++6",
    "libuuid1", "libzstd1", "zlib1g",
)  # fmt: skip
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring")
_MIRROR = re.compile(r"^\S+/debian/?$", re.MULTILINE)
_FIELD = re.compile(r"^(?P<name>Package|Version|SHA256): (?P<value>\S+)$", re.MULTILINE)

type Pins = Mapping[str, Mapping[str, str]]
"""Name of a package -> its "version" and "sha256"."""


@dataclass(frozen=True, slots=True)
class Package:
    """A .deb file of this machine."""

    name: str
    version: str
    architecture: str
    file: Path


class Apt:
    """A separate apt in a folder, for one architecture and Debian's newest packages."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Take over the mirror that this machine's apt uses for Debian.

        Raises:
            ImageError: this machine has no apt, or no Debian mirror.
        """
        self._get = need("apt-get", package="apt")
        self._cache = need("apt-cache", package="apt")
        listed = run([self._get, "indextargets", "--format", "$(REPO_URI)"])
        mirror = _MIRROR.search(listed)
        if mirror is None:
            raise ImageError("apt has no Debian mirror here: the image's Python comes from there")
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        keyrings = [KEYRING.with_suffix(kind) for kind in (".pgp", ".gpg")]
        lines = ["Types: deb", f"URIs: {mirror[0]}", f"Suites: {SUITE}", "Components: main"]
        lines += [f"Signed-By: {found}" for found in keyrings if found.exists()][:1]
        (folder / "mirror.sources").write_text("\n".join(lines) + "\n")
        settings = {
            "APT::Architecture": kind,
            "APT::Architectures": kind,
            "APT::Sandbox::User": "root",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled": "false",
            "Acquire::Languages": "none",
            "Dir::Cache": str(folder),
            "Dir::Etc::sourcelist": str(folder / "mirror.sources"),
            "Dir::Etc::sourceparts": "-",
            "Dir::State": str(folder),
            "Dir::State::status": str(folder / "status"),
        }
        config = folder / "apt.conf"
        config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = {"APT_CONFIG": str(config)}
        run([self._get, "-qq", "update"], environment=self._environment)

    def offered(self) -> Pins:
        """The newest version of each package, and its digest.

        Raises:
            ImageError: one is not in the suite any more.
        """
        shown = run(
            [self._cache, "show", "--no-all-versions", *NAMES], environment=self._environment
        )
        found: dict[str, dict[str, str]] = {}
        for stanza in shown.split("\n\n"):
            fields = {field["name"].lower(): field["value"] for field in _FIELD.finditer(stanza)}
            if name := fields.pop("package", ""):
                found[name] = fields
        if missing := set(NAMES) - found.keys():
            raise ImageError(f"not in Debian's suite {SUITE}: {', '.join(sorted(missing))}")
        return {name: found[name] for name in NAMES}

    def download(self, wanted: Pins, cache: Path) -> None:
        """Fetch packages into the cache; apt checks their signature.

        None may be wanted any more, because another process has fetched them meanwhile: apt-get
        fails when it is given no name.
        """
        if not wanted:
            return
        cache.mkdir(parents=True, exist_ok=True)
        versions = [f"{name}={pin['version']}" for name, pin in wanted.items()]
        with tempfile.TemporaryDirectory() as place:
            script = 'cd "$1" && shift && exec "$@"'  # apt writes into the current folder
            run(
                ["sh", "-c", script, "sh", place, self._get, "-qq", "download", *versions],
                environment=self._environment,
            )
            for name, pin in wanted.items():
                (file,) = Path(place).glob(f"{name}_*.deb")
                shutil.move(file, _place(cache, name, pin))


def architecture() -> str:
    """Debian's name of this machine's architecture.

    Raises:
        ImageError: no packages are pinned for it.
    """
    found = ARCHITECTURES.get(platform.machine())
    if found is None:
        raise ImageError(f"no Python is pinned for {platform.machine()}")
    return found


def fetch(kind: str = "", cache: Path = CACHE) -> list[Package]:
    """The packages, from the cache or else from the mirror.

    Args:
        kind: Debian's name of the architecture; "" is this machine's.
    Raises:
        ImageError: they can't be had, or what can be had has a known defect.
    """
    kind = kind or architecture()
    pins: Pins = json.loads(LOCK.read_text("utf-8"))["packages"][kind]
    if not all(_is_cached(cache, name, pin) for name, pin in pins.items()):
        with tempfile.TemporaryDirectory() as folder:
            apt = Apt(Path(folder), kind)
            pins = choose(pins, apt.offered(), strict=os.environ.get(STRICT) == "1")
            missing = {n: pin for n, pin in pins.items() if not _is_cached(cache, n, pin)}
            apt.download(missing, cache)
    for name, pin in pins.items():
        if not _is_cached(cache, name, pin):
            raise ImageError(f"{_place(cache, name, pin)} has another digest than {pin['sha256']}")
    if found := known_defects(pins[INTERPRETER]["version"]):
        raise ImageError("the image's Python has known defects:\n" + "\n".join(found))
    return [
        Package(name, pin["version"], kind, _place(cache, name, pin)) for name, pin in pins.items()
    ]


def choose(pinned: Pins, offered: Pins, *, strict: bool) -> Pins:
    """The pinned packages if the mirror has them all, else what the mirror has, with a warning.

    Raises:
        ImageError: the pins are binding, and one of them has left the mirror.
    """
    moved = [
        f"{name} {pin['version']} -> {offered[name]['version']}"
        for name, pin in pinned.items()
        if offered.get(name) != pin
    ]
    if not moved:
        return pinned
    told = "the mirror no longer has what interpreter.json pins: " + ", ".join(moved)
    if strict:
        raise ImageError(f"{told}\nrun hack/update-interpreter, and commit the change")
    print(f"warning: {told}\nrun hack/update-interpreter to pin these", file=sys.stderr)
    return offered


def _place(cache: Path, name: str, pin: Mapping[str, str]) -> Path:
    return cache / f"{name}-{pin['sha256'][:16]}.deb"


def _is_cached(cache: Path, name: str, pin: Mapping[str, str]) -> bool:
    file = _place(cache, name, pin)
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == pin["sha256"]


def update() -> None:
    """Pin what the mirror has now, for every architecture."""
    pins = {}
    for kind in sorted(ARCHITECTURES.values()):
        with tempfile.TemporaryDirectory() as folder:
            pins[kind] = Apt(Path(folder), kind).offered()
    LOCK.write_text(json.dumps({"suite": SUITE, "packages": pins}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        update()
    except ImageError as error:
        sys.exit(f"image: {error}")
