"""hack/charts.py: deploy/ and values.yaml reach the charts, and drift is noticed."""

import json
from pathlib import Path

import pytest

import charts

VALUES = """
# How many.
replicas: 2
# The image.
image:
  # Where it is.
  repository: x
# What it may use.
resources:
  limits: {memory: 1Gi}
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "global": {"type": "object"},
        "replicas": {"type": "integer"},
        "image": {"type": "object", "properties": {"repository": {"type": "string"}}},
        "resources": {"type": "object", "properties": {"limits": {"type": "object"}}},
    },
}
CRD = """# A comment for those who read deploy/.
metadata:
  name: x
  annotations:
    api-approved.kubernetes.io: y
spec: {}
"""


def test_the_comment_above_a_value_is_its_description() -> None:
    found = charts.values(VALUES)
    assert [(value.name, value.description) for value in found] == [
        ("replicas", "How many."),
        ("image", "The image."),
        ("image.repository", "Where it is."),
        ("resources", "What it may use."),
    ]
    assert found[-1].default == {"limits": {"memory": "1Gi"}}


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(charts.ChartError, match=r"values.yaml:9: image.tag has no comment"):
        charts.values(VALUES.replace("  repository: x", "  repository: x\n\n  tag: y"))


def test_descriptions_go_into_the_schema_and_its_rules_stay() -> None:
    whole = json.loads(charts.schema(json.dumps(SCHEMA), charts.values(VALUES)))
    assert whole["properties"]["replicas"] == {"description": "How many.", "type": "integer"}
    assert whole["properties"]["image"]["properties"]["repository"]["description"] == "Where it is."
    assert whole["properties"]["resources"]["properties"] == {"limits": {"type": "object"}}


def test_schema_and_values_have_to_have_the_same_keys() -> None:
    found = charts.values(VALUES)
    with pytest.raises(charts.ChartError, match=r"values\.yaml lacks replicas"):
        charts.schema(json.dumps(SCHEMA), found[1:])
    lacking = {"type": "object", "properties": {"replicas": {}}}
    with pytest.raises(charts.ChartError, match=r"values\.schema\.json lacks image"):
        charts.schema(json.dumps(lacking), found)


def test_the_readme_has_a_row_for_each_value_and_none_for_groups() -> None:
    text = f"before\n{charts.BEGIN}\nold\n{charts.END}\nafter\n"
    made = charts.readme(text, charts.values(VALUES))
    assert "| `replicas` | `2` | How many. |" in made
    assert "| `image.repository` |" in made
    assert "| `image` |" not in made
    assert "old" not in made
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    with pytest.raises(charts.ChartError):
        charts.readme("no markers", [])


def test_a_crd_becomes_a_template_that_stays_on_uninstall() -> None:
    made = charts.crd_template(CRD, "x.yaml")
    assert "{{- if .Values.crds.install }}" in made
    assert "helm.sh/resource-policy: keep" in made
    assert "A comment for those" not in made
    with pytest.raises(charts.ChartError, match="braces"):
        charts.crd_template(CRD.replace("y\n", "{{ y }}\n"), "x.yaml")


def test_drift_is_noticed_in_every_made_file(tmp_path: Path) -> None:
    files = charts.made()
    assert charts.differences(files) == ""
    for file, text in files.items():
        assert charts.differences({**files, file: text + "x\n"}) != "", file
    stale = charts.OPERATOR / "templates" / "crds" / "buckets.yaml"
    left_out = {file: text for file, text in files.items() if file != stale}
    assert "has no source" in charts.differences(left_out)
