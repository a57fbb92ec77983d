"""`make containerfile`: build the Containerfile where its base image can't be pulled.

That base is Debian's minimal system with a Python under /usr/local. The same is put together here,
by debootstrap and from the Python that runs this; what is then built on it is the Containerfile,
word for word. buildah needs no daemon and no container for that: each RUN is run in a chroot.
"""

import json
import os
import platform
import re
import shutil
import ssl
import sys
import tempfile
import time
from pathlib import Path

from image.contract import ROOT, identify
from image.tools import ImageError, need, run

OUTPUT = ROOT / "build" / "containerfile"
_BASE = re.compile(r"^ARG PYTHON_BASE=python:(?P<python>[\d.]+)-slim-(?P<suite>\w+)$", re.MULTILINE)
PACKAGES = "ca-certificates,netbase,tzdata"
"""What the base has besides the minimal system; the first brings OpenSSL."""
BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def build(output: Path) -> None:
    """Build the Containerfile into the folder `output`, as an OCI layout.

    Raises:
        ImageError: this can't be done here; the message says what is needed.
    """
    found = _BASE.search((ROOT / "Containerfile").read_text())
    if not found:
        raise ImageError("the Containerfile names no base as in python:3.13-slim-bookworm")
    require(found["python"], found["suite"])
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)  # buildah makes the last folder only
    with tempfile.TemporaryDirectory(prefix="cosi-") as name:
        folder = Path(name)
        base, image = f"localhost/python:{found['python']}", "localhost/cosi-operator"
        started_s = time.monotonic()
        context = _make_base(folder, found["suite"])
        _buildah(folder, "bud", f"--tag={base}", str(context))
        print(f"a base as {found[0].partition('=')[2]}: {time.monotonic() - started_s:.0f} s")
        started_s = time.monotonic()
        identity = identify()
        arguments = {
            "PYTHON_BASE": base,
            "VERSION": identity.version,
            "REVISION": identity.revision,
            "CREATED": identity.created,
            "SOURCE": identity.source,
            "SOURCE_DATE_EPOCH": identity.epoch_s,
        }
        words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        file = f"--file={ROOT / 'Containerfile'}"
        _buildah(folder, "bud", "--isolation=chroot", file, *words, f"--tag={image}", str(ROOT))
        print(f"the Containerfile: {time.monotonic() - started_s:.0f} s")
        _buildah(folder, "push", image, f"oci:{output}:{identity.version}")
    print(output)


def require(python: str, suite: str) -> None:
    """Say what is missing: the machine's Python is copied, so its C libraries must be the base's.

    Raises:
        ImageError: the message names all of it.
    """
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    lacking = [
        what
        for what, is_met in {
            "root, since it changes the root and mounts": os.geteuid() == 0,
            f"Debian {suite}": release.get("VERSION_CODENAME") == suite,
            f"Python {python} with its own folder (as pyenv or the base itself has it, not "
            "Debian's), by which .venv was made": platform.python_version().startswith(f"{python}.")
            and sys.base_prefix != "/usr",
        }.items()
        if not is_met
    ]
    if lacking:
        raise ImageError("to build the Containerfile here takes " + "; and ".join(lacking))


def _make_base(folder: Path, suite: str) -> Path:
    """Return a folder in which buildah finds how to make the base."""
    root, context = folder / "root", folder / "context"
    context.mkdir()
    # The mounts that debootstrap makes end with it, however that ends.
    unshare = need("unshare", package="util-linux")
    debootstrap = need("debootstrap", package="debootstrap")
    run(
        [
            unshare, "--mount", "--propagation=private",
            debootstrap, "--variant=minbase", f"--include={PACKAGES}", suite, str(root),
        ]
    )  # fmt: skip
    shutil.copytree(
        sys.base_prefix,
        root / "usr" / "local",
        symlinks=True,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("test", "__pycache__"),
    )
    run(["chroot", str(root), "/sbin/ldconfig"])
    if authorities := ssl.get_default_verify_paths().cafile:
        shutil.copyfile(authorities, root / BUNDLE)
    # apt accepts the age of the mirror that this machine's apt accepts.
    setting = "Acquire::Check-Valid-Until"
    value = run(["apt-config", "dump", "--format", "%v", setting]).strip()
    (root / "etc/apt/apt.conf.d/99-as-here").write_text(f'{setting} "{value or "true"}";\n')
    run(["tar", "--create", f"--directory={root}", f"--file={context / 'base.tar'}", "."])
    # pip and uv ask the index that they ask here, and trust whom this machine trusts.
    variables = {
        "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SSL_CERT_FILE": f"/{BUNDLE}",
        **{name: text for name, text in os.environ.items() if name.startswith(("PIP_", "UV_"))},
    }
    lines = ["FROM scratch", "ADD base.tar /"]
    lines += [f"ENV {name}={json.dumps(text)}" for name, text in variables.items()]
    (context / "Containerfile").write_text("\n".join(lines) + "\n")
    return context


def _buildah(folder: Path, verb: str, *words: str) -> None:
    """Run buildah with all that it stores in `folder`."""
    program = need("buildah", package="buildah")
    places = [f"--root={folder / 'storage'}", f"--runroot={folder / 'state'}"]
    run([program, "--storage-driver=vfs", *places, verb, "--quiet", *words])


def main() -> None:
    """Build into build/containerfile."""
    try:
        build(OUTPUT)
    except ImageError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
