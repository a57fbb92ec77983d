"""What the shells offer for the word that is being typed."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import cosi_operator
from cosi_operator.cli import main
from cosi_operator.cli.completion import SCRIPTS, complete, names_in_cluster

OPERATOR = Path(cosi_operator.__file__).parents[1]
NAMES = ("photos", "ba/photos-keys")


def offered(*words: str) -> list[str]:
    return complete(words, lambda *_: NAMES).split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(("st",), ["status"], id="a command"),
        pytest.param(("-n", "shop", "dri"), ["driver", "drivers"], id="after a cluster option"),
        pytest.param(("policy", ""), ["explain", "show"], id="the commands of a group"),
        pytest.param(("status", "--al"), ["--all-namespaces"], id="an option"),
        pytest.param(("status", "-o", "w"), ["wide"], id="the value of an option"),
        pytest.param(("driver", "check", "-o", "j"), ["json", "junit"], id="of a nested command"),
        pytest.param(("completion", ""), ["bash", "fish", "zsh"], id="a choice"),
        pytest.param(("why", "p"), ["photos"], id="a claim"),
        pytest.param(("retry", "-n", "shop", "ba/"), ["ba/photos-keys"], id="an access"),
        pytest.param(("status", "--namespace", ""), [], id="a value that is not known"),
        pytest.param(("why", "bucketaccess/p"), ["bucketaccess/photos-keys"], id="another word"),
        pytest.param(("why", "bc/"), ["bc/photos"], id="a claim with its kind"),
        pytest.param(("why", "secret/"), [], id="a word that is no kind"),
        pytest.param(("status", "--output=w"), ["--output=wide"], id="a value after ="),
        pytest.param(("status", "--output", "=", "w"), ["wide"], id="the same, split by bash"),
        pytest.param(("status", "--output", "=", "j"), ["json"], id="again"),
        pytest.param(("why", "--namespace=shop", "p"), ["photos"], id="after a value with ="),
    ],
)
def test_what_is_offered(words: Sequence[str], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_no_word_at_all_offers_every_command() -> None:
    assert {"status", "why", "completion"} <= set(offered(""))
    assert complete([]) == complete([""])


def test_the_options_of_the_cluster_reach_the_reader_of_names() -> None:
    seen: list[Sequence[str]] = []

    def names(before: Sequence[str], options: Sequence[str]) -> list[str]:
        seen.append(options)
        return []

    complete(("--context", "staging", "why", "-n", "shop", ""), names)
    complete(("--context=staging", "why", "--namespace", "=", "shop", ""), names)
    complete(("--kubeconfig", "a", ":", "b", ":", "c", "why", ""), names)
    assert seen == [
        ["--context", "staging", "-n", "shop"],
        ["--context", "staging", "--namespace", "shop"],
        ["--kubeconfig", "a:b:c"],
    ]


def test_a_cluster_that_cant_be_asked_offers_no_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert list(names_in_cluster(["why"], [])) == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_script_asks_cosi_and_says_how_to_install_it(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "cosi __complete" in script
    assert f"cosi completion {shell} >" in script


def test_the_script_of_zsh_completes_at_the_first_tab() -> None:
    """zsh runs the file itself as the function then, and only defines one by that."""
    assert 'if [[ $funcstack[1] == _cosi ]]; then _cosi "$@"; fi' in SCRIPTS["zsh"]


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    cosi = tmp_path / "cosi"
    cosi.write_text(
        f"#!{sys.executable}\nimport sys\nfrom cosi_operator.cli import main\nsys.exit(main())\n"
    )
    cosi.chmod(0o755)
    typed = (
        f"{SCRIPTS['bash']}\nCOMP_WORDS=(cosi -n shop dri); COMP_CWORD=3; _cosi;"
        ' echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", typed],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(OPERATOR)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("driver drivers\n", "")
