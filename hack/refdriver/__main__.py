"""Run the reference driver until SIGTERM or SIGINT.

The admin's key comes from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from awsclient import Account
from refdriver import record
from refdriver.backend import Backend
from refdriver.process import DEFAULT_NAME, KEY_VARIABLE, SECRET_KEY_VARIABLE
from refdriver.service import build_server

STOP_GRACE_S = 2.0


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="refdriver", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen at")
    parser.add_argument("--endpoint", required=True, help="URL of S3 and IAM")
    parser.add_argument("--region", required=True, help="region to sign for")
    parser.add_argument("--name", default=DEFAULT_NAME, help="driver name (default: %(default)s)")
    parser.add_argument(
        "--unlocked-policy",
        action="store_true",
        help="give access by the bucket's policy, edited without a lock",
    )
    parser.add_argument(
        "--hold-edits", type=Path, help="folder: edits wait while it has a file named `hold`"
    )
    parser.add_argument(
        "--calls", type=Path, help="file to which the record of each call is appended, too"
    )
    options = parser.parse_args()
    if options.calls is not None:
        record.append_to(options.calls)
    try:
        key, secret = os.environ[KEY_VARIABLE], os.environ[SECRET_KEY_VARIABLE]
    except KeyError as error:
        parser.error(f"the environment variable {error} is missing")
    backend = Backend(
        Account(options.endpoint, options.region, key, secret),
        unlocked_policy=options.unlocked_policy,
        holding=options.hold_edits,
    )
    server = build_server(options.socket, options.name, backend, (options.endpoint, options.region))
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    server.start()
    stopping.wait()
    server.stop(STOP_GRACE_S).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
