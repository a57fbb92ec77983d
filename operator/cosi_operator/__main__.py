"""`python -m cosi_operator controller|sidecar|people ...`: the entry points, without installing."""

import sys

from cosi_operator import cli

ENTRIES = {"controller": cli.controller, "sidecar": cli.sidecar, "people": cli.people}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ENTRIES:
        sys.exit(f"usage: python -m cosi_operator {'|'.join(ENTRIES)} [flags]")
    sys.exit(ENTRIES[sys.argv[1]](sys.argv[2:]))
