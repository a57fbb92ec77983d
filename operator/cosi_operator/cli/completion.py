"""Completion for bash, zsh and fish: the scripts, and the candidates that they ask for.

Each script calls `cosi __complete WORDS...`, where the last word is the one being typed. The
answer has one candidate on each line. Names come from the cluster, if it answers soon.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence

from cosi_operator.cli.grammar import build
from cosi_operator.cli.words import kind_of

CLUSTER_LIMIT_S = 2.0
VALUE_OPTIONS = ("-n", "--namespace", "--context", "--kubeconfig")

BASH = """\
# bash completion for cosi; install: cosi completion bash > /etc/bash_completion.d/cosi
_cosi() {
    local IFS=$'\\n' words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    COMPREPLY=($(cosi __complete "${words[@]}" 2>/dev/null))
}
complete -o default -F _cosi cosi
"""
ZSH = """\
#compdef cosi
# zsh completion for cosi; install: cosi completion zsh > a file _cosi in a folder of $fpath
_cosi() {
    local -a found
    found=("${(@f)$(cosi __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found || _files
}
compdef _cosi cosi
# Read from a folder of $fpath, this file is the function of the first Tab, which must complete too.
if [[ $funcstack[1] == _cosi ]]; then _cosi "$@"; fi
"""
FISH = """\
# fish completion for cosi; install: cosi completion fish > ~/.config/fish/completions/cosi.fish
function __cosi_complete
    set -l words (commandline -opc) (commandline -ct)
    cosi __complete $words[2..-1] 2>/dev/null
end
complete -c cosi -f -a '(__cosi_complete)'
complete -c cosi -l kubeconfig -r -F
complete -c cosi -l file -r -F
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str) -> str:
    """The script for one shell."""
    return SCRIPTS[shell]


def complete(words: Sequence[str], names: "Names | None" = None) -> str:
    """The candidates for the last word, one on each line."""
    *before, typed = _split(words)
    option, equals, value = typed.partition("=")
    if equals and option.startswith("--"):  # zsh and fish replace the whole word, bash its end
        found = _candidates([*before, option], value, names or names_in_cluster)
        found = [f"{option}={word}" for word in found]
    else:
        found = _candidates(before, typed, names or names_in_cluster)
    fitting = sorted({word for word in found if word.startswith(typed)})
    return "".join(f"{word}\n" for word in fitting)


def _split(words: Sequence[str]) -> list[str]:
    """The words with each `--option=value` as two, but for the last, which is being typed.

    bash splits at "=" and ":" and passes these as separate words.
    """
    *before, typed = words or [""]
    split: list[str] = []
    for word in before:
        if split and (word == ":" or split[-1].endswith(":")):  # files of --kubeconfig
            split[-1] += word
        elif word.startswith("--") and "=" in word:
            split += word.split("=", 1)
        elif word != "=":
            split.append(word)
    return [*split, "" if typed == "=" else typed]


type Names = Callable[[Sequence[str], Sequence[str]], Iterable[str]]


def _candidates(before: Sequence[str], typed: str, names: Names) -> Iterable[str]:
    parser, options = _parser_at(before)
    last = before[-1] if before else ""
    for action in parser._actions:
        if last in action.option_strings and action.nargs != 0:
            return action.choices or ()  # the value of an option
    if typed.startswith("-"):
        return [word for action in parser._actions for word in action.option_strings]
    found: list[str] = []
    for action in parser._actions:
        if action.option_strings:
            continue
        if action.dest == "target":
            found += _as_typed(names(before, options), typed)
        else:
            found += action.choices or ()
    return found


def _as_typed(names: Iterable[str], typed: str) -> Iterable[str]:
    """The names with the kind that was typed, which has more than one spelling."""
    word, slash, _ = typed.rpartition("/")
    if not slash:
        return names
    kind = kind_of(word)
    return [
        f"{word}/{name.removeprefix('ba/')}"
        for name in names
        if kind == ("bucketaccess" if name.startswith("ba/") else "bucketclaim")
    ]


def _parser_at(before: Sequence[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of the command that was typed so far, and the options for the cluster."""
    parser = build("cosi")
    options: list[str] = []
    skip = False
    for word in before:
        if skip:
            options.append(word)
            skip = False
        elif word in VALUE_OPTIONS:
            options.append(word)
            skip = True
        else:
            parser = _subparser(parser, word) or parser
    return parser, options if not skip else options[:-1]


def _subparser(parser: argparse.ArgumentParser, word: str) -> argparse.ArgumentParser | None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser | None = action.choices.get(word)
            return found
    return None


def names_in_cluster(before: Sequence[str], options: Sequence[str]) -> Iterable[str]:
    """Names of claims, and of accesses as `ba/NAME`; nothing if the cluster can't be asked."""
    try:
        import anyio

        from cosi_operator.cli import commands
        from cosi_operator.cli.arguments import parse
        from cosi_operator.cli.near import names_of
        from cosi_operator.clock import RealClock
        from cosi_operator.sdk.read import Reader
    except ImportError:
        return []
    command = parse(["status", *options], "cosi")

    async def ask() -> list[str]:
        with anyio.move_on_after(CLUSTER_LIMIT_S):
            async with commands.connect(command, RealClock()) as client:
                namespace = command.namespace or client.default_namespace
                found = await names_of(Reader(client), namespace)
            if "rotate" in before:
                return [name for word, name in found if word == "bucketaccess"]
            return [name if word == "bucketclaim" else f"ba/{name}" for word, name in found]
        return []

    try:
        return anyio.run(ask)
    except Exception:  # noqa: BLE001 - a completion that fails completes nothing
        return []
