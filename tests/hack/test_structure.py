"""`hack/verify-structure` finds long modules and functions, and names outside their home."""

import pytest

from structure import FUNCTION_LINES, MODULE_LINES, api_fields, names, sizes

PACKAGE = "operator/cosi_operator"
CLAIM = f"{PACKAGE}/controller/claim.py"


def problems(path: str, text: str) -> list[tuple[int, str]]:
    found = names(path, text, frozenset({"bucketReady"}))
    return [(finding.line, finding.problem) for finding in found]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        pytest.param(MODULE_LINES, 0, id="as long as allowed -> nothing"),
        pytest.param(MODULE_LINES + 1, 1, id="one line more -> found"),
    ],
)
def test_a_long_module_is_found(lines: int, found: int) -> None:
    assert len(list(sizes("hack/a.py", "x = 1\n" * lines))) == found


@pytest.mark.parametrize("start", ["def f():", "async def f():", "class A:\n  def f(self):"])
def test_a_long_function_is_found_wherever_it_is(start: str) -> None:
    def text(body: int) -> str:
        return start + "\n" + "      x = 1\n" * body

    assert list(sizes("hack/a.py", text(FUNCTION_LINES - 2))) == []
    (finding,) = sizes("hack/a.py", text(FUNCTION_LINES - 1))
    assert f"f has {FUNCTION_LINES} lines" in str(finding)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        pytest.param(
            '\nx = "cosi.objectstorage.k8s.io/x"', 2, "plan/names.py", id="annotation key"
        ),
        pytest.param('\nx = f"objectstorage.k8s.io/{a}"', 2, "plan/names.py", id="part of a key"),
        pytest.param('\nx["bucketReady"] = True', 2, "'bucketReady' belongs in api/", id="field"),
        pytest.param("\n# as in v1alpha1", 2, "v1alpha1", id="version in a comment"),
        pytest.param("from cosi_operator.api import v1alpha1", 1, "v1alpha1", id="version in code"),
    ],
)
def test_a_name_outside_its_home_is_found(text: str, line: int, problem: str) -> None:
    ((found_line, found),) = problems(CLAIM, text)
    assert found_line == line
    assert problem in found


def test_the_command_line_shows_fields_and_names_no_version() -> None:
    text = 'x = "bucketReady"\nfrom cosi_operator.api import v1alpha1'
    assert [line for line, _ in problems(f"{PACKAGE}/cli/read.py", text)] == [2]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(f"{PACKAGE}/api/encode.py", 'x = "bucketReady"', id="field in api/"),
        pytest.param(
            f"{PACKAGE}/plan/names.py", 'X = "objectstorage.k8s.io/x"', id="key in plan/names.py"
        ),
        pytest.param(CLAIM, '"""Writes objectstorage.k8s.io/retry."""', id="key in a docstring"),
        pytest.param(CLAIM, 'x = "the field bucketReady is false"', id="field in a sentence"),
        pytest.param(
            CLAIM, "from cosi_operator.driver.v1alpha1 import Driver", id="module of the driver"
        ),
        pytest.param("hack/a.py", 'x = "bucketReady"', id="outside the package"),
    ],
)
def test_other_places_are_no_finding(path: str, text: str) -> None:
    assert problems(path, text) == []


def test_the_fields_are_those_of_the_crds() -> None:
    fields = api_fields()
    assert {"bucketReady", "accountID", "driverName", "observedRetry", "credentialsSecretName"} <= (
        fields
    )
    assert fields.isdisjoint({"spec", "status", "conditions", "apiVersion"})
