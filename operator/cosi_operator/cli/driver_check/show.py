"""The report of a check: text for people, JSON for programs, JUnit for CI. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from cosi_operator.cli.driver_check.advice import Advice
from cosi_operator.cli.driver_check.finding import Finding, Result, words_of
from cosi_operator.cli.driver_check.seen import CheckRecord
from cosi_operator.cli.text import clean, paragraph
from cosi_operator.cli.tree import to_text

SUITE = "cosi driver check"
_MARKS = {Result.PASS: "ok", Result.WARN: "warn", Result.FAIL: "FAIL", Result.SKIP: "skip"}
_INDENT = " " * 8


def text(seen: CheckRecord, findings: Sequence[Finding], advice: Advice) -> str:
    """One line for each check, two more where something is to be said; then the advice."""
    lines = [f"Driver {clean(seen.driver)} at {seen.options.address}\n"]
    for finding in findings:
        lines.append(f"{_MARKS[finding.result]:<6}{finding.check}")
        if finding.result in (Result.WARN, Result.FAIL):
            lines.append(paragraph(f"expected: {finding.rule}", _INDENT))
            lines.append(paragraph(f"seen:     {finding.seen}", _INDENT))
        elif finding.result is Result.SKIP:
            lines.append(paragraph(clean(finding.seen), _INDENT))
    lines += ["", _summary(seen, findings), "", *_advised(advice)]
    return "\n".join(lines) + "\n"


def _summary(seen: CheckRecord, findings: Sequence[Finding]) -> str:
    counts = Counter(finding.result for finding in findings)
    spent_s = sum(asked.elapsed_s for _, asked in seen.every)
    parts = ", ".join(f"{counts[r]} {w}" for r, w in _COUNTED if counts[r] or r is Result.PASS)
    return f"{parts}; {len(seen.every)} calls in {spent_s:.1f} s"


_COUNTED = (
    (Result.PASS, "passed"),
    (Result.WARN, "warnings"),
    (Result.FAIL, "failed"),
    (Result.SKIP, "not asked"),
)


def _advised(advice: Advice) -> list[str]:
    if advice.flags:
        lines = ["Set for the sidecar of this driver:"]
        for flag in advice.flags:
            lines += [f"  {flag.text}", paragraph(f"because {flag.because}", _INDENT)]
    else:
        lines = ["For the sidecar of this driver, the default retry policy fits what was seen."]
    return [*lines, *(paragraph(f"Note: {note}", "  ") for note in advice.notes)]


def json(seen: CheckRecord, findings: Sequence[Finding], advice: Advice) -> str:
    """All of it. Messages are as `text` shows them, without ids and credentials."""
    calls = [
        {
            "step": step,
            "call": asked.call,
            "code": asked.status.code.name,
            "madeBy": asked.status.made_by,
            "elapsedMs": round(asked.elapsed_s * 1000),
            "words": words_of(asked),
        }
        for step, asked in seen.every
    ]
    tree: dict[str, Any] = {
        "driver": seen.driver,
        "address": seen.options.address,
        "passed": not any(finding.result is Result.FAIL for finding in findings),
        "checks": findings,
        "advice": {"flags": advice.flags, "notes": advice.notes},
        "leftBehind": seen.left,
        "calls": calls,
    }
    return to_text(tree, "json")


def junit(seen: CheckRecord, findings: Sequence[Finding], advice: Advice) -> str:
    """One test case for each check; warnings and the advice are output of the suite's cases."""
    counts = Counter(finding.result for finding in findings)
    suite = ElementTree.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(findings)),
        failures=str(counts[Result.FAIL]),
        skipped=str(counts[Result.SKIP]),
        errors="0",
        time=f"{sum(asked.elapsed_s for _, asked in seen.every):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("driver", seen.driver), ("address", seen.options.address)):
        ElementTree.SubElement(properties, "property", name=name, value=clean(value))
    for flag in advice.flags:
        ElementTree.SubElement(properties, "property", name="advice", value=flag.text)
    for finding in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname="cosi-driver", name=finding.check, time="0"
        )
        seen_words = clean(finding.seen)
        match finding.result:
            case Result.FAIL:
                failure = ElementTree.SubElement(case, "failure", message=seen_words)
                failure.text = f"expected: {finding.rule}\nseen: {seen_words}"
            case Result.SKIP:
                ElementTree.SubElement(case, "skipped", message=seen_words)
            case Result.WARN:
                output = ElementTree.SubElement(case, "system-out")
                output.text = f"warning: {finding.rule} {seen_words}"
            case Result.PASS:
                pass
    ElementTree.indent(suite)
    body = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'
