"""Explores the small world to its end, and prints what was covered.

    PYTHONPATH=operator:hack:. .venv/bin/python -m tests.explore --moves 1 --amid 1

Exit status 1: a counterexample was found, or a search did not end.
"""

import argparse
import multiprocessing
import os
import sys

import structlog
from tests.explore.scenes import SCENES
from tests.explore.search import Bound, Result, Search


def explore(name: str, bound: Bound, limit_s: float) -> Result:
    """Search one scene."""
    (scene,) = [scene for scene in SCENES if scene.name == name]
    with structlog.testing.capture_logs():
        return Search(scene, bound, limit_s=limit_s).run()


def _job(arguments: tuple[str, Bound, float]) -> tuple[str, list[str], tuple[float, ...], bool]:
    result = explore(*arguments)
    numbers = (result.states, result.transitions, result.depth, result.seconds)
    with structlog.testing.capture_logs():
        traces = [str(found) for found in result.found]
    return str(result), traces, numbers, result.complete


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=1, help="moves from outside, at most")
    parser.add_argument("--amid", type=int, default=1, help="of them while work is under way")
    parser.add_argument("--limit", type=float, default=1e9, help="CPU seconds for each scene")
    parser.add_argument("--scene", help="explore only this one")
    chosen = parser.parse_args()
    bound = Bound(chosen.moves, chosen.amid)
    names = [scene.name for scene in SCENES if chosen.scene in (None, scene.name)]
    jobs = [(name, bound, chosen.limit) for name in names]
    rows, counterexamples, is_complete = [], 0, bool(jobs)
    context = multiprocessing.get_context("fork")
    with context.Pool(min(len(jobs) or 1, os.cpu_count() or 1)) as pool:
        for line, found, numbers, complete in pool.imap(_job, jobs, chunksize=1):
            print("\n".join([line, *found]), flush=True)
            rows.append(numbers)
            counterexamples += len(found)
            is_complete &= complete
    states, transitions = sum(row[0] for row in rows), sum(row[1] for row in rows)
    depth, seconds = max((row[2] for row in rows), default=0), sum(row[3] for row in rows)
    print(
        f"at most {bound.moves} moves, {bound.amid} amid work: states {states:.0f}, transitions"
        f" {transitions:.0f}, depth {depth:.0f}, {seconds:.0f} s CPU, counterexamples"
        f" {counterexamples}, complete: {'yes' if is_complete else 'no'}"
    )
    return 0 if is_complete and not counterexamples else 1


if __name__ == "__main__":
    sys.exit(main())
