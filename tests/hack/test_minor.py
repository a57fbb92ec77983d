"""The pins of Kubernetes minors, and the table of the minors that were tested."""

import re

import pytest

from controlplane import minor
from controlplane.build import BuildError, cache_key, linker_flags, pinned_version

UPSTREAM = """// This is a generated file. Do not edit directly.

module k8s.io/kubernetes

go 1.23.0

godebug default=go1.23

require (
	github.com/blang/semver/v4 v4.0.0
	k8s.io/api v0.0.0
	k8s.io/klog/v2 v2.130.1
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/kubectl => ./staging/src/k8s.io/kubectl
)
"""
REPORT = """<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest"
errors="1" failures="2" skipped="3" tests="100" time="1.0"></testsuite></testsuites>"""
PAGE = f"""before

{minor.BEGIN}| Kubernetes | passed | failed | date | commit |
|---|---|---|---|---|
| 1.37.2 | 10 | 0 | 2026-11-01 | aaa |
| 1.9.3 | 10 | 0 | 2026-11-01 | aaa |
{minor.END}

after
"""
PINNED = sorted(folder.name for folder in minor.MINORS.iterdir())


def test_a_go_mod_replaces_each_staging_module_by_its_published_version() -> None:
    assert minor.go_mod(UPSTREAM, "v1.32.13").splitlines()[1:] == [
        "module controlplane/kubernetes-1.32",
        "",
        "go 1.23.0",
        "godebug default=go1.23",
        "",
        "require k8s.io/kubernetes v1.32.13",
        "",
        "replace (",
        "\tk8s.io/api => k8s.io/api v0.32.13",
        "\tk8s.io/kubectl => k8s.io/kubectl v0.32.13",
        ")",
    ]


def test_a_go_mod_without_staging_modules_is_refused() -> None:
    with pytest.raises(BuildError, match="no staging module"):
        minor.go_mod(UPSTREAM.partition("replace")[0], "v1.32.13")


def test_the_newest_patch_is_the_highest_number_that_is_no_prerelease() -> None:
    versions = "k8s.io/kubernetes v1.3.99 v1.30.2 v1.30.14 v1.30.15-rc.0 v1.31.20"
    assert minor.newest_patch(versions, "1.30") == "v1.30.14"
    with pytest.raises(BuildError, match=r"no release of Kubernetes 1\.32"):
        minor.newest_patch(versions, "1.32")


@pytest.mark.parametrize("name", PINNED)
def test_the_pins_of_a_minor_are_complete(name: str) -> None:
    go_mod = (minor.MINORS / name / "go.mod").read_text("utf-8")
    version = pinned_version(go_mod, minor.MODULE)
    assert version.startswith(f"v{name}.")
    replaced = re.findall(r"(?m)^\t(\S+) => (\S+) v0(\S+)$", go_mod)
    assert len(replaced) >= 30
    assert {rest for _, _, rest in replaced} == {version.removeprefix("v1")}
    assert f"version.gitVersion={version}" in linker_flags(minor.program(name), go_mod)
    assert cache_key(minor.program(name))


def test_a_row_tells_how_many_tests_passed_and_failed() -> None:
    assert minor.row("v1.31.14", REPORT, "2026-11-28", "abc1234") == (
        "| 1.31.14 | 94 | 3 | 2026-11-28 | abc1234 |"
    )


def test_a_new_row_replaces_that_of_its_minor_and_the_newest_minor_is_first() -> None:
    page = minor.with_row(PAGE, "| 1.9.4 | 11 | 0 | 2026-11-28 | bbb |")
    page = minor.with_row(page, "| 1.30.14 | 11 | 0 | 2026-11-28 | bbb |")
    assert [line.split()[1] for line in page.splitlines() if line.startswith("| 1.")] == [
        "1.37.2",
        "1.30.14",
        "1.9.4",
    ]
    assert page.startswith("before\n")
    assert page.endswith("\n\nafter\n")


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(BuildError, match="needs"):
        minor.with_row("no table", "| 1.9.4 | 11 | 0 | 2026-11-28 | bbb |")


def test_the_table_of_the_support_matrix_takes_rows() -> None:
    page = minor.TABLE.read_text("utf-8")
    new = "| 1.99.1 | 11 | 0 | 2026-11-28 | bbb |"
    assert minor.with_row(page, new).replace(f"{new}\n", "") == page
