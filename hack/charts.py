"""The generated parts of charts/: made from deploy/ and from each chart's own values.yaml.

- `templates/crds/` and `templates/_rules.tpl` are deploy/crds and deploy/rbac as Helm wants them.
- The comment above a value in values.yaml is its description. It goes into the table of the
  README and into values.schema.json, whose structure is written by hand.

Usage: charts.py update | verify
"""

import difflib
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CRDS = ROOT / "deploy" / "crds"
RBAC = ROOT / "deploy" / "rbac"
OPERATOR = ROOT / "charts" / "cosi-operator"
SIDECAR = ROOT / "charts" / "cosi-sidecar-lib"

MADE = "Made by hack/update-charts from {}: do not edit."
BEGIN = "<!-- made by hack/update-charts from values.yaml: do not edit -->"
END = "<!-- end of the made part -->"
KEEP = "    # What a chart's uninstalling must not take: with a CRD go all its objects.\n"
KEEP += "    helm.sh/resource-policy: keep\n"


class ChartError(Exception):
    """A source can't be made into its part of a chart; says which and why."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value that a user may set. `name` is its path, as `--set` takes it."""

    name: str
    default: Any
    description: str


def crd_template(text: str, name: str) -> str:
    """A CRD as a template: with labels, kept on uninstall, and only when it is wanted.

    Raises:
        ChartError: the text would not survive as a template.
    """
    if "{{" in text:
        raise ChartError(f"{name}: braces would be read as a template")
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        del lines[0]
    marks = [i for i, line in enumerate(lines) if line == "  annotations:\n"]
    if not marks or lines[marks[0] - 2] != "metadata:\n":
        raise ChartError(f"{name}: metadata has to begin with name and annotations")
    labels = '  labels:\n    {{- include "cosi-operator.labels"'
    labels += ' (dict "context" . "component" "") | nindent 4 }}\n'
    at = marks[0]
    body = "".join([*lines[:at], labels, lines[at], KEEP, *lines[at + 1 :]])
    made = MADE.format(f"deploy/crds/{name}")
    return f"{{{{- /* {made} */ -}}}}\n{{{{- if .Values.crds.install }}}}\n{body}{{{{- end }}}}\n"


def rules(file: str, kind: str) -> str:
    """The text below `rules:` of the one object of this kind in a file of deploy/rbac."""
    text = (RBAC / file).read_text("utf-8")
    found = [doc for doc in text.split("\n---\n") if yaml.safe_load(doc)["kind"] == kind]
    if len(found) != 1:
        raise ChartError(f"{file} has {len(found)} objects of kind {kind}, not one")
    _, _, below = found[0].partition("\nrules:\n")
    return "\n".join(line.removeprefix("  ") for line in below.rstrip("\n").splitlines())


def rules_template(names: Mapping[str, tuple[str, str]]) -> str:
    """A named template for each (file, kind)."""
    made = MADE.format("deploy/rbac")
    parts = [f"{{{{/* {made} */}}}}\n"]
    for name, (file, kind) in names.items():
        parts.append(f'{{{{- define "{name}" -}}}}\n{rules(file, kind)}\n{{{{- end -}}}}\n')
    return "\n".join(parts)


def values(text: str) -> list[Value]:
    """Every value of a values.yaml, in its order.

    Raises:
        ChartError: a key has no comment above it.
    """
    lines = text.splitlines()
    return list(_walk(yaml.compose(text, Loader=yaml.SafeLoader), lines, ()))


def _walk(node: Any, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        name = (*path, key.value)
        description = _comment(lines, key.start_mark.line)
        if not description:
            raise ChartError(
                f"values.yaml:{key.start_mark.line + 1}: {'.'.join(name)} has no comment"
            )
        default = yaml.safe_load(yaml.serialize(value))
        yield Value(".".join(name), default, description)
        children = value.value if value.id == "mapping" else []
        if any(_comment(lines, child.start_mark.line) for child, _ in children):
            yield from _walk(value, lines, name)


def _comment(lines: list[str], at: int) -> str:
    said: list[str] = []
    while at > 0 and lines[at - 1].lstrip().startswith("#"):
        at -= 1
        said.insert(0, lines[at].lstrip().removeprefix("#").strip())
    return " ".join(said)


def readme(text: str, found: list[Value]) -> str:
    """The README with its table made anew; groups have no row.

    Raises:
        ChartError: the markers are not there exactly once, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ChartError(f"the README needs one {BEGIN!r} and then one {END!r}")
    groups = {value.name.rpartition(".")[0] for value in found}
    rows = [
        f"| `{value.name}` | `{_shown(value.default)}` | {value.description} |"
        for value in found
        if value.name not in groups
    ]
    table = "\n".join(["| value | default | what it is |", "|---|---|---|", *rows])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _shown(default: Any) -> str:
    return json.dumps(default).replace("|", "\\|")


def schema(text: str, found: list[Value]) -> str:
    """values.schema.json with the descriptions of values.yaml.

    Raises:
        ChartError: one of the two has a value that the other lacks.
    """
    whole = json.loads(text)
    described = set()
    for value in found:
        node: dict[str, Any] = whole
        for part in value.name.split("."):
            if part not in node.get("properties", {}):
                raise ChartError(f"values.schema.json lacks {value.name}")
            node = node["properties"][part]
        described.add(value.name)
        kept = {key: rule for key, rule in node.items() if key != "description"}
        node.clear()
        node.update({"description": value.description, **kept})
    for name in _described(whole, ()):
        if name not in described:
            raise ChartError(f"values.yaml lacks {name}")
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _described(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Names in the schema, without the fields of an object that only has one description."""
    for name, below in node.get("properties", {}).items():
        if path or name != "global":  # Helm puts `global` into every chart that is part of another
            yield ".".join((*path, name))
        if any("description" in deeper for deeper in below.get("properties", {}).values()):
            yield from _described(below, (*path, name))


def version() -> str:
    """The version of the package; chart and image have the same."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def chart_yaml(text: str) -> str:
    """Chart.yaml with the package's version as its own and as the app's."""
    ours = {"version": version(), "appVersion": version()}
    return "".join(
        f"{key}: {ours[key]}\n" if (key := line.partition(":")[0]) in ours else line
        for line in text.splitlines(keepends=True)
    )


def made() -> dict[Path, str]:
    """The content of every generated file, by path."""
    files = {
        OPERATOR / "templates" / "crds" / crd.name: crd_template(crd.read_text("utf-8"), crd.name)
        for crd in sorted(CRDS.glob("*.yaml"))
    }
    files[OPERATOR / "templates" / "_rules.tpl"] = rules_template(
        {
            f"cosi-operator.rules.{who}.{kind}": (f"{who}.yaml", kind)
            for who in ("controller", "sidecar")
            for kind in ("ClusterRole", "Role")
        }
    )
    files[SIDECAR / "templates" / "_rules.tpl"] = rules_template(
        {f"cosi-sidecar.rules.{kind}": ("sidecar.yaml", kind) for kind in ("ClusterRole", "Role")}
    )
    for chart in (OPERATOR, SIDECAR):
        found = values((chart / "values.yaml").read_text("utf-8"))
        for name, make in (("README.md", readme), ("values.schema.json", schema)):
            files[chart / name] = make((chart / name).read_text("utf-8"), found)
        files[chart / "Chart.yaml"] = chart_yaml((chart / "Chart.yaml").read_text("utf-8"))
    return files


def superfluous(files: Mapping[Path, str]) -> list[Path]:
    """CRDs in the chart that deploy/ no longer has."""
    return [crd for crd in (OPERATOR / "templates" / "crds").glob("*") if crd not in files]


def differences(files: Mapping[Path, str]) -> str:
    """A diff of all generated files; "" if they are up to date."""
    told = [f"{crd} has no source in deploy/crds\n" for crd in superfluous(files)]
    for file, text in files.items():
        there = file.read_text("utf-8") if file.exists() else ""
        told += difflib.unified_diff(
            there.splitlines(keepends=True), text.splitlines(keepends=True), str(file), "made anew"
        )
    return "".join(told)


def main(do: str) -> int:
    files = made()
    if do == "verify":
        told = differences(files)
        sys.stderr.write(told and f"{told}charts/ is out of date: run hack/update-charts\n")
        return 1 if told else 0
    for crd in superfluous(files):
        crd.unlink()
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except ChartError as error:
        sys.exit(str(error))
