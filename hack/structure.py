"""Finds what docs/style.md rules out in the source: long modules and functions, names in two homes.

`hack/verify-structure` runs it. Names: finalizers, annotation keys and field names of the API are
written in `api/` and `plan/names.py`, and only `api/`, `driver/` and `rpc/` name an API version.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "operator/cosi_operator/"
GENERATED = f"{PACKAGE}rpc/"
MODULE_LINES = 400
FUNCTION_LINES = 60

DOMAIN = "objectstorage.k8s.io/"
VERSION = "v1alpha1"
KNOWS_NAMES = tuple(f"{PACKAGE}{room}" for room in ("api/", "driver/", "rpc/", "plan/names.py"))
# These show the fields of objects to people.
READS_FOR_PEOPLE = (f"{PACKAGE}cli/", f"{PACKAGE}sdk/")
# The neutral calls of a driver, by the name of their module.
DRIVER = "cosi_operator.driver.v1alpha1"
# Fields of every Kubernetes object, or with another meaning elsewhere.
COMMON_FIELDS = {"apiVersion", "fieldPath", "resourceVersion"}
# Fields that a message names, and fields of other objects with the same name.
ALLOWED = {
    (f"{PACKAGE}plan/claim_view.py", "driverName"),
    (f"{PACKAGE}plan/claim_view.py", "deletionPolicy"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One place, and what is wrong there."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


def sizes(path: str, text: str) -> Iterator[Finding]:
    """The module and its functions that are too long to read in one sitting."""
    lines = text.count("\n")
    if lines > MODULE_LINES:
        yield Finding(path, 1, f"{lines} lines, at most {MODULE_LINES}: split it along a real seam")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length >= FUNCTION_LINES:
                problem = f"{node.name} has {length} lines, fewer than {FUNCTION_LINES} are allowed"
                yield Finding(path, node.lineno, problem)


def names(path: str, text: str, fields: frozenset[str]) -> Iterator[Finding]:
    """The names of the API that are written outside their homes."""
    if not path.startswith(PACKAGE) or path.startswith(KNOWS_NAMES):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if VERSION in line.replace(DRIVER, ""):
            yield Finding(path, number, f"only api/, driver/ and rpc/ name {VERSION}")
    if path.startswith(READS_FOR_PEOPLE):
        return
    tree = ast.parse(text)
    prose = _prose(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node in prose:
            continue
        if DOMAIN in node.value:
            yield Finding(path, node.lineno, f"{node.value!r} belongs in plan/names.py or api/")
        if node.value in fields and (path, node.value) not in ALLOWED:
            yield Finding(path, node.lineno, f"the field {node.value!r} belongs in api/")


def _prose(tree: ast.AST) -> set[ast.AST]:
    """The strings that are statements: docstrings, and the texts below constants."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def api_fields() -> frozenset[str]:
    """The field names of spec and status, of two words or more: one word has many meanings."""
    found: set[str] = set()
    for path in sorted((ROOT / "deploy/crds").glob("*.yaml")):
        for version in yaml.safe_load(path.read_text())["spec"]["versions"]:
            found |= set(_properties(version["schema"]["openAPIV3Schema"]))
    return frozenset(name for name in found - COMMON_FIELDS if not name.islower())


def _properties(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)


def tracked() -> Iterator[str]:
    """The Python files of `operator/` and `hack/`, as git knows them, without generated ones."""
    command = ["git", "ls-files", "operator", "hack"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        if name.endswith(".py") and not name.startswith(GENERATED) and (ROOT / name).exists():
            yield name


def main() -> int:
    fields = api_fields()
    found: list[Finding] = []
    for path in tracked():
        text = (ROOT / path).read_text()
        found += [*sizes(path, text), *names(path, text, fields)]
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
