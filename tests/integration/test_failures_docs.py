"""The outputs of `kubectl describe` in docs/failures.md are what a user sees today."""

from pathlib import Path

from failure_docs import SCENES_BEGIN, SPACE, part, played
from testbed import Testbed

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"


def test_the_five_commonest_failures_look_as_the_page_shows_them(bed: Testbed) -> None:
    """When this fails: hack/update-failure-docs, and read what it changed."""
    shown = part(PAGE.read_text(encoding="utf-8"), SCENES_BEGIN)[1]
    told = played(bed)
    tidy(bed)
    assert told.strip() == shown


def tidy(bed: Testbed) -> None:
    """Delete the failing objects: what is retried would write while another test sees quiet."""
    bed.driver.clear_rules()
    claims = [claim["metadata"]["name"] for claim in bed.all_of("bucketclaims", SPACE)]
    accesses = [access["metadata"]["name"] for access in bed.all_of("bucketaccesses", SPACE)]
    for claim in claims:
        bed.annotate("bucketclaims", claim, SPACE, retry="now")
    bed.delete_all("bucketaccesses", accesses, SPACE)
    bed.delete_all("bucketclaims", claims, SPACE)
    bed.until_gone("bucketclaims", claims, namespace=SPACE, timeout_s=60)
    bed.until_gone("bucketaccesses", accesses, namespace=SPACE, timeout_s=60)
