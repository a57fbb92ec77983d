"""The outputs of `kubectl describe` in docs/failures.md are what a user sees today."""

from pathlib import Path

from failure_docs import SCENES_BEGIN, part, played
from testbed import Testbed

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def test_the_five_commonest_failures_look_as_the_page_shows_them(bed: Testbed) -> None:
    """When this fails: hack/update-failure-docs, and read what it changed."""
    shown = part(PAGE.read_text(encoding="utf-8"), SCENES_BEGIN)[1]
    assert played(bed).strip() == shown
