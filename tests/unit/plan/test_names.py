"""Which names the API server takes."""

import pytest

from cosi_operator.plan.names import is_object_name


@pytest.mark.parametrize("name", ["a", "a-b.c9", "0", "a" * 253])
def test_names_of_objects(name: str) -> None:
    assert is_object_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "../a", "-a", "a-", ".a", "a..b", "a_b", "a\n", "ä", "a" * 254]
)
def test_what_is_no_name_of_an_object(name: str) -> None:
    assert not is_object_name(name)
