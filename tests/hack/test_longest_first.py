"""The modules that tests/conftest.py starts first exist."""

from pathlib import Path

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).resolve().parents[2]


def test_each_module_that_begins_first_exists() -> None:
    assert [path for path in LONGEST_FIRST if not (ROOT / path).is_file()] == []
