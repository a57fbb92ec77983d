#!/usr/bin/python3 -ISB
"""`test -S FILE` and its like, for probes that vendors' charts run in the sidecar's container.

It stands in the image as /usr/bin/test, where there is no shell that would have it built in. It
exits as POSIX says: 0 it is so, 1 it is not, 2 the question is none.
"""

import os
import stat
import sys
from collections.abc import Callable, Mapping

QUESTIONS: Mapping[str, Callable[[int], bool]] = {
    "-d": stat.S_ISDIR,
    "-e": lambda _: True,
    "-f": stat.S_ISREG,
    "-S": stat.S_ISSOCK,
}


def main(words: list[str]) -> int:
    """The exit code for the words of the command line."""
    match words:
        case [question, path] if question in QUESTIONS:
            try:
                mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib would double the start
            except OSError:
                return 1
            return 0 if QUESTIONS[question](mode) else 1
    sys.stderr.write(f"test: only {', '.join(QUESTIONS)} FILE is known in this image\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
