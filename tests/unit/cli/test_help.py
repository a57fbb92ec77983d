"""Help, versions and options of the cluster: where they may stand, and examples that are right."""

import re
import shlex

import pytest

from cosi_operator.cli import main
from cosi_operator.cli.arguments import Command, parse
from cosi_operator.cli.grammar import HELP, version
from cosi_operator.cli.words import Target

CLUSTER = {"namespace": "shop", "context": "staging", "kubeconfig": "a:b"}
WORDS = ("-n", "shop", "--context", "staging", "--kubeconfig", "a:b")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((*WORDS, "status"), id="before the command"),
        pytest.param(("status", *WORDS), id="after the command"),
        pytest.param((*WORDS[:2], "status", *WORDS[2:]), id="on both sides"),
        pytest.param(("-n", "other", "status", *WORDS, "--context", "staging"), id="the last wins"),
    ],
)
def test_the_options_of_the_cluster_go_before_or_after_the_command(words: tuple[str, ...]) -> None:
    found = parse(words, "cosi")
    assert {name: getattr(found, name) for name in CLUSTER} == CLUSTER


@pytest.mark.parametrize(
    ("word", "target"),
    [
        pytest.param("photos", Target("bucketclaim", "photos"), id="a name"),
        pytest.param("bc/photos", Target("bucketclaim", "photos"), id="bc"),
        pytest.param("ba/keys", Target("bucketaccess", "keys"), id="ba"),
        pytest.param("BucketAccesses/keys", Target("bucketaccess", "keys"), id="a plural"),
        pytest.param(
            "bucketaccess.objectstorage.k8s.io/keys",
            Target("bucketaccess", "keys"),
            id="as -o name prints it",
        ),
    ],
)
def test_kinds_are_taken_as_people_and_kubectl_write_them(word: str, target: Target) -> None:
    assert parse(("why", word), "cosi").target == target


@pytest.mark.parametrize("name", HELP)
def test_the_help_of_each_command_has_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\nexamples:\n  # " in shown
    assert "\nexit codes: 0" in shown
    for _, example in HELP[name].examples:
        assert f"\n  cosi {example}\n" in shown
        words = shlex.split(example.partition(" > ")[0])
        assert isinstance(parse(words, "cosi"), Command)


@pytest.mark.parametrize("name", ["why", "retry", "rotate"])
def test_every_short_kind_that_the_help_names_is_taken(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    named = re.search(r"short:\s([a-z,\s]+)\)", capsys.readouterr().out)
    assert named is not None
    for kind in named[1].split(","):
        assert isinstance(parse((name, f"{kind.strip()}/photos"), "cosi"), Command)


@pytest.mark.parametrize("group", ["policy", "driver"])
def test_the_help_of_a_group_has_an_example_too(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([group, "--help"]) == 0
    assert f"\n  cosi {group} " in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cosi {version()}\n"


def test_the_former_name_of_the_table_is_still_taken() -> None:
    assert parse(("status", "-o", "text"), "cosi").output == "table"
