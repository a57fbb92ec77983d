"""The log lines in docs/operations.md are what a sidecar writes today."""

from pathlib import Path

from failure_docs import part
from log_docs import BEGIN, played
from testbed import Testbed

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_log_lines_look_as_the_page_shows_them(bed: Testbed) -> None:
    """When this fails: hack/update-log-docs, and read what it changed."""
    shown = part(PAGE.read_text(encoding="utf-8"), BEGIN)[1]
    assert played(bed).strip() == shown
