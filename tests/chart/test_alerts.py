"""The alerts and the dashboard of the chart, judged by promtool: Prometheus' own parser and engine.

When an alert fires and when it does not is in alerts_test.yaml.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.pod import ROOT
from tests.chart.promtool import promtool

from controlplane import ensure
from cosi_operator.metrics import Metrics
from cosi_operator.outcome import Reason

pytestmark = pytest.mark.timeout(900)  # the first run builds promtool, unless `make test` has

FILES = ROOT / "charts" / "cosi-operator" / "files"
ALERTS = FILES / "alerts.yaml"
CASES = ROOT / "tests" / "chart" / "alerts_test.yaml"
GOLDEN = ROOT / "tests" / "chart" / "golden" / "everything.yaml"
SERIES = re.compile(r"^(?P<name>\w+)\{(?P<labels>[^}]*)\}$")
SELECTOR = re.compile(r"\b([a-z]+_[a-z_]+)(\{[^}]*\}|\))(?!\s*\()")
LABEL = re.compile(r'(\w+)="([^"]*)"')
BY_PROMETHEUS = {"cosi_process", "namespace", "pod"}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    ensure(["promtool"])


def alerts() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return rules


def cases() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load(CASES.read_text())["tests"]
    return tests


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
    return found


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and mkdocs make them of plain words."""
    titles = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def exposed() -> dict[str, set[str]]:
    """Each series that a process can expose, and its labels."""
    metrics = Metrics(controllers=["bucket"])
    metrics.leads("lease", leading=False)
    metrics.seed_calls()
    metrics.built("cosi-sidecar", version="1.2.3", commit="0123abc")
    metrics.driver("d.example.com", up=True)
    metrics.watch_objects("Bucket", dict)
    metrics.watch_missing_permissions(lambda: ["get secrets"])
    metrics.watch_dropped_lines(lambda: 0)
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # The queues are read when they are scraped, and here is none.
    found.update({name: {"name"} for name in found if name.startswith("workqueue_")})
    return found


def test_promtool_accepts_the_rules() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    assert f"SUCCESS: {len(alerts())} rules found" in said


def test_promtool_accepts_the_rules_as_the_chart_renders_them(tmp_path: Path) -> None:
    documents = filter(None, yaml.safe_load_all(GOLDEN.read_text()))
    (rule,) = (document for document in documents if document["kind"] == "PrometheusRule")
    rendered = tmp_path / "rules.yaml"
    rendered.write_text(yaml.safe_dump(rule["spec"]))
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", rendered)


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", CASES)


def found_by_promtool(cases: Path) -> str:
    """What promtool says against the rules; empty if they pass all cases."""
    try:
        promtool("test", "rules", cases)
    except AssertionError as failed:
        return str(failed)
    return ""


def expect_failure(folder: Path, rules: str, alert: str) -> None:
    """Run the cases on changed rules; promtool must report `alert`.

    The cases in which nothing fires run only if those that name the alert show no difference,
    because they take ten times as long.
    """
    assert rules != ALERTS.read_text()
    (folder / "alerts.yaml").write_text(rules)
    document = {**yaml.safe_load(CASES.read_text()), "rule_files": ["alerts.yaml"]}
    naming = [case for case in document["tests"] if alert in json.dumps(case)]
    silent = [case for case in document["tests"] if "promql_expr_test" in case]
    for some in (naming, silent):
        (folder / "alerts_test.yaml").write_text(yaml.safe_dump({**document, "tests": some}))
        if said := found_by_promtool(folder / "alerts_test.yaml"):
            assert alert in said
            return
    pytest.fail(f"no case notices what was changed about {alert}")


@pytest.mark.parametrize(
    ("old", "new", "alert"),
    [
        pytest.param("|ALREADY_EXISTS|NOT_FOUND", "", "Refuses", id="success is a refusal"),
        pytest.param(
            'call!~"DriverCreateBucket|', 'call!~"', "Refuses", id="an adopted bucket is a refusal"
        ),
        pytest.param(") > 5\n          )", ") > 4\n          )", "Refuses", id="one user suffices"),
        pytest.param("> 0.2", "> 0.09", "Refuses", id="a tenth suffices"),
        pytest.param("> 0.2", "> 0.6", "Refuses", id="half does not suffice"),
        pytest.param('="stalled"}) > 5', '="stalled"}) > 4', "Stalled", id="five suffice"),
        pytest.param("sum by (namespace, kind", "max by (namespace, kind", "Stalled", id="no sum"),
        pytest.param("== 0\n        for: 5m", "== 0\n        for: 1m", "Absent", id="a restart"),
        pytest.param('cosi_process!="",code="403"', 'code="403"', "Forbidden", id="foreign 403"),
        pytest.param('code!="INTERNAL",', 'code="OK",', "Fails", id="a refusal is a failure"),
    ],
)
def test_a_weaker_rule_fails_the_cases(tmp_path: Path, old: str, new: str, alert: str) -> None:
    expect_failure(tmp_path, ALERTS.read_text().replace(old, new), alert)


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_an_alert_without_its_pause_fails_the_cases(tmp_path: Path, alert: str) -> None:
    before, name, after = ALERTS.read_text().partition(f"- alert: {alert}\n")
    changed = re.sub(r"for: \d+m\n", "for: 0s\n", after, count=1)
    expect_failure(tmp_path, before + name + changed, alert)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for case in cases():
        for check in case.get("alert_rule_test", []):
            (fires if check["exp_alerts"] else silent).add(check["alertname"])
    assert fires == silent == {rule["alert"] for rule in alerts()}


def test_the_cases_use_series_and_labels_that_the_processes_expose() -> None:
    known = exposed()
    for case in cases():
        for series in case["input_series"]:
            found = SERIES.match(series["series"])
            assert found, series
            labels = dict(LABEL.findall(found["labels"]))
            assert found["name"] in known, series
            assert set(labels) - BY_PROMETHEUS == known[found["name"]], series


def test_alerts_and_dashboard_ask_for_series_and_labels_that_the_processes_expose() -> None:
    known = exposed()
    for expression in [*(rule["expr"] for rule in alerts()), *panel_expressions()]:
        selectors = SELECTOR.findall(expression)
        assert selectors, expression
        for name, selector in selectors:
            assert name in known, f"{name} of {expression}"
            asked = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert asked <= known[name] | BY_PROMETHEUS, expression


def test_each_alert_waits_says_how_bad_it_is_and_links_a_section_that_exists() -> None:
    sections = anchors((ROOT / "docs" / "failures.md").read_text())
    for rule in alerts():
        assert re.fullmatch(r"\d+m", rule["for"]), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor) == ("docs/failures.md", rule["alert"].lower())
        assert anchor in sections


def test_the_chart_puts_its_own_url_into_each_link() -> None:
    links = re.findall(r"runbook_url: (\S+)", GOLDEN.read_text())
    page = "https://docs.example.com/failures.html"
    assert links == [f"{page}#{rule['alert'].lower()}" for rule in alerts()]


def test_the_reasons_that_an_alert_names_exist() -> None:
    (rule,) = (rule for rule in alerts() if rule["alert"] == "CosiAdministratorNeeded")
    (words,) = re.findall(r'reason=~"([^"]+)"', rule["expr"])
    assert set(words.split("|")) <= {reason.value for reason in Reason}


def test_promtool_accepts_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    found = panel_expressions()
    plain = [text.replace("$__rate_interval", "5m").replace("$namespace", ".*") for text in found]
    assert not [text for text in plain if "$" in text]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(plain)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    said = promtool("check", "rules", "--lint=none", file)
    assert f"SUCCESS: {len(found)} rules found" in said


def test_each_panel_is_described_and_the_first_row_is_numbers() -> None:
    panels: list[Mapping[str, Any]] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith((".", "cosi status -A")), panel["title"]
        row = panel["gridPos"]["y"] < 4
        assert (panel["type"] == "stat") is row, panel["title"]
    first = [panel["gridPos"] for panel in panels if panel["type"] == "stat"]
    assert [(at["x"], at["y"], at["w"]) for at in first] == [(x, 0, 4) for x in range(0, 24, 4)]
