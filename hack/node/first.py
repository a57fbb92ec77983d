"""The first process of a sandbox: runs one command and reaps every process without a parent.

    python -m node.first COMMAND...

When the command has ended, so does this, and the kernel kills the rest of the sandbox. SIGTERM goes
to the command as SIGINT, which pytest and Python take for an orderly end.
"""

import os
import signal
import subprocess
import sys
from types import FrameType


def main() -> int:
    """Run the command; return its exit code, 128 and the signal's number if one ended it."""
    command = subprocess.Popen(sys.argv[1:])

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        os.kill(command.pid, signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    while True:
        pid, status = os.wait()
        if pid == command.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
