"""Run a command in a sandbox for a node, as root on Linux: python -m node COMMAND...

The exit code is the command's; 2 if a node can't run here or left something behind, 128 and the
signal's number if a signal ended it.
"""

import argparse
import sys
from pathlib import Path

from controlplane.build import BuildError, ensure
from node.machine import PROGRAMS
from node.needs import NodeError, missing
from node.sandbox import Sandbox

FOLDER = Path("build") / "node"


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="node", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for files (%(default)s)")
    parser.add_argument("--check", action="store_true", help="only say whether a node can run")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not (arguments.command or arguments.check):
        parser.error("which command?")
    if lacks := missing():
        print("error: no node can run on this machine, so nothing was run:", file=sys.stderr)
        print("\n".join(f"- {one}" for one in lacks), file=sys.stderr)
        return 2
    if arguments.check:
        return 0
    try:
        ensure(PROGRAMS)
        with Sandbox(arguments.folder) as sandbox:
            code = sandbox.run(arguments.command)
    except (BuildError, NodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sandbox.name} ended without a trace", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
