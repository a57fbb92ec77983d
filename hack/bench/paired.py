"""Ours, another commit of ours and the bare limit, in turn, in one run.

    make paired BASE=<commit>          five rounds of 1000 claims
    python -m bench.paired --rounds 3 --claims 400

A machine's speed changes within the hour, so only figures of one run are compared, as ratios; the
limit (`bench.limit`) stands at both ends of each round. Prints a table in Markdown.
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import limit
from bench.scenarios import gone, ready
from bench.turns import Turn, comparison
from bench.world import OURS, Pair, world
from testbed.process import ROOT

BASES = ROOT / "build" / "base"

type Measure = tuple[str, Callable[[], Turn]]


def tree_of(commit: str) -> Path:
    """The sources of a commit with separate packages; made when missing, in half a minute."""
    name = _run("git", "rev-parse", "--short", f"{commit}^{{commit}}").strip()
    tree = BASES / name
    if not (tree / ".venv" / ".stamp").exists():
        tree.mkdir(parents=True, exist_ok=True)
        archive = tree.with_suffix(".tar")
        _run("git", "archive", "--output", str(archive), name)
        _run("tar", "-xf", str(archive), "-C", str(tree))
        archive.unlink()
        _run("make", "--directory", str(tree), ".venv/.stamp")
    return tree


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def burst(pair: Pair, count: int) -> Turn:
    """Claims made at once, and then deleted at once.

    Raises:
        RuntimeError: some did not become ready, or did not go.
    """
    names = [f"c{number}" for number in range(count)]
    with world(pair) as found:
        found.start()
        found.until_idle()
        idle_mib = found.memory()["sidecar"]["rss"]
        made, used = ready(found, names)
        found.until_idle()
        deleted, used_later = gone(found, names)
    if made.missing or deleted.missing:
        raise RuntimeError(f"{pair.name}: {made.missing} claims not ready, {deleted.missing} left")
    return Turn(
        made.per_s,
        deleted.per_s,
        max(used.others_percent, used_later.others_percent),
        used.per(count, "controller", "sidecar"),
        idle_mib,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure in turn and print the table."""
    parser = argparse.ArgumentParser(prog="bench.paired", description=__doc__.partition("\n")[0])
    parser.add_argument("base", nargs="?", help="another commit; without it, ours and the limit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", type=int, default=1000)
    given = parser.parse_args(arguments)
    story = limit.story()
    bare: Measure = ("limit", lambda: limit.measure(story, given.claims))
    measures: list[Measure] = [("this commit", lambda: burst(OURS, given.claims))]
    if given.base:
        tree = tree_of(given.base)
        other = Pair(tree.name, tree=tree)
        measures.append((other.name, lambda: burst(other, given.claims)))
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number in range(given.rounds):
        order = measures if number % 2 == 0 else measures[::-1]
        for who, measure in (bare, *order, bare):
            found = measure()
            turns[who].append(found)
            print(f"round {number + 1}, {who}: {found}", file=sys.stderr, flush=True)
    print(comparison(turns, of="this commit"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
