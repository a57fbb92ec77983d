"""`hack/verify-english` finds the phrases that docs/style.md rules out."""

import pytest

from english import INSTEAD, findings


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        pytest.param("It waits for ever.", 1, "for ever", id="phrase in a sentence -> found"),
        pytest.param("a\nFor ever", 2, "For ever", id="capital letter -> found, with its line"),
        pytest.param("tried again by\nitself.", 1, "by itself", id="split by a line -> found"),
        pytest.param("That is no error.", 1, "is no error", id="a negated noun -> found"),
        pytest.param('"for"\n    " ever"', 1, "for ever", id="split in a string -> found"),
        pytest.param("x = 1  # for\n# ever", 1, "for ever", id="split in a comment -> found"),
    ],
)
def test_a_phrase_is_found(text: str, line: int, phrase: str) -> None:
    (found,) = findings("docs/a.md", text)
    assert (found.line, found.phrase) == (line, phrase)
    assert str(found).startswith(f'docs/a.md:{line}: "{phrase}": write: ')


@pytest.mark.parametrize(
    "text",
    [
        "forever",
        "there is no record",
        "it is no longer used",
        "a process by its own clock",
        "in vainglory",
        "It waits.",
    ],
)
def test_other_words_are_not_found(text: str) -> None:
    assert list(findings("docs/a.md", text)) == []


def test_every_phrase_has_a_better_one() -> None:
    assert all(INSTEAD.values())
