"""Put the locked dependencies and the operator itself into a root filesystem, compiled."""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from image.contract import ENTRIES, FILE_TEST, LICENSE
from image.interpreter import CACHE_TAG, NAME, SITE, TRIPLES, Base
from image.tools import ImageError, find_uv, run

PACKAGE = "cosi_operator"
SHARDS = 2
# Sources of extension modules, tests, and records that are wrong once files were left out.
LEFT_OUT_FILES = ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.hash", "*.proto")
LEFT_OUT_FOLDERS = ("tests", "testdata")
LEFT_OUT_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")

LAUNCHER = """\
#!/usr/bin/python3 -IB
# Isolated: no variable of the pod (PYTHONPATH, PYTHONHOME ...) changes what is run.
import sys

from {module} import {function}

sys.exit({function}())
"""


def install_dependencies(rootfs: Path, source: Path, kind: str) -> None:
    """Install requirements/run.txt, whose hashes are checked, from wheels for `kind` only."""
    site = rootfs / SITE
    run(
        [
            find_uv(), "pip", "install", "--quiet", "--no-config", f"--python={sys.executable}",
            f"--python-version={NAME.removeprefix('python')}",
            f"--python-platform={TRIPLES[kind].replace('-linux-', '-unknown-linux-')}",
            f"--target={site}", "--require-hashes", "--no-deps", "--only-binary=:all:",
            "--link-mode=copy", f"--requirement={source / 'requirements' / 'run.txt'}",
        ]
    )  # fmt: skip
    shutil.rmtree(site / "bin", ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)
    for pattern in LEFT_OUT_FILES:
        for path in site.rglob(pattern):
            path.unlink()
    for name in LEFT_OUT_FOLDERS:
        for path in [found for found in site.rglob(name) if found.is_dir()]:
            shutil.rmtree(path)
    for name in LEFT_OUT_RECORDS:
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def install_operator(rootfs: Path, source: Path) -> None:
    """Copy the package, write its metadata (what `--version` reads) and the entry points.

    No build backend is asked: it is a copy, and a backend would be one more unlocked download.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    site = rootfs / SITE
    shutil.copytree(
        source / "operator" / PACKAGE,
        site / PACKAGE,
        ignore=shutil.ignore_patterns("__pycache__", *LEFT_OUT_FILES),
    )
    records = site / f"{PACKAGE}-{project['version']}.dist-info"
    (records / "licenses").mkdir(parents=True)
    shutil.copyfile(source / "LICENSE", records / "licenses" / "LICENSE")
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {LICENSE}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {needed}" for needed in project["dependencies"]),
    ]
    (records / "METADATA").write_text("\n".join(lines) + "\n")
    for name, (module, function) in ENTRIES.items():
        launcher = rootfs / name
        launcher.write_text(LAUNCHER.format(module=module, function=function))
        launcher.chmod(0o755)
    shutil.copyfile(source / "hack" / "image" / "file_test.py", rootfs / FILE_TEST)


def compile_all(rootfs: Path, base: Base) -> None:
    """Write the .pyc of every module, equal for equal sources and on every architecture.

    They hold the source's hash and are not checked against it, so times don't matter. Each worker
    has its fixed share in a fixed order, since what one file left interned shows in the next.
    """
    files = sorted(map(str, (rootfs / "usr" / "lib").rglob("*.py")))
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        for shard in range(SHARDS):
            listed = Path(folder, str(shard))
            listed.write_text("\n".join(files[shard::SHARDS]))
            workers.append(_compiler(rootfs, base, listed))
        outputs = [worker.communicate()[0] for worker in workers]
    for worker, output in zip(workers, outputs, strict=True):
        if worker.returncode != 0:
            raise ImageError(f"a module can't be compiled:\n{output.strip()}")


def _compiler(rootfs: Path, base: Base, listed: Path) -> subprocess.Popen[str]:
    # -s and -p: a traceback names /usr/lib/..., not the folder of the build.
    return subprocess.Popen(
        [
            *base.python("-SB", "-m", "compileall"),
            "-q", "-f", "--invalidation-mode=unchecked-hash",
            f"-s{rootfs}", "-p/", f"-i{listed}",
        ],
        env={"PYTHONHOME": str(base.root / "usr"), "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def modules_without_bytecode(rootfs: Path) -> Iterator[Path]:
    """The modules that a process would have to compile at each start."""
    for path in sorted((rootfs / "usr" / "lib").rglob("*.py")):
        compiled = path.parent / "__pycache__" / f"{path.stem}.{CACHE_TAG}.pyc"
        if not compiled.exists():
            yield path
