"""The examples in the SDK's docstrings and on its page, run against a server."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from tests.unit.sdk.conftest import Shop

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "python.md"
MODULES = ("cosi_operator.sdk.objects", "cosi_operator.sdk.credentials")


@pytest.mark.parametrize("name", MODULES)
def test_every_example_in_a_docstring_prints_what_it_shows(shop: Shop, name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_every_example_on_the_page_prints_what_it_shows(shop: Shop) -> None:
    examples = "\n".join(re.findall(r"(?ms)^```pycon\n(.*?)^```$", PAGE.read_text()))
    page = doctest.DocTestParser().get_doctest(examples, {}, PAGE.name, str(PAGE), 0)
    assert len(page.examples) > 10
    assert doctest.DocTestRunner().run(page).failed == 0
