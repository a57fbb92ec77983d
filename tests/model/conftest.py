"""What all model tests share."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of worlds would fill the screen with the same few log lines."""
    with structlog.testing.capture_logs():
        yield
