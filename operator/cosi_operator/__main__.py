"""`python -m cosi_operator controller|sidecar|cosi ...` runs an entry point without installing."""

import sys
from importlib import import_module

# Only the module of the requested process is imported.
ENTRIES = {
    "controller": ("cosi_operator.app", "controller"),
    "sidecar": ("cosi_operator.app", "sidecar"),
    "cosi": ("cosi_operator.cli", "main"),
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ENTRIES:
        sys.exit(f"usage: python -m cosi_operator {'|'.join(ENTRIES)} [flags]")
    module, function = ENTRIES[sys.argv[1]]
    sys.exit(getattr(import_module(module), function)(sys.argv[2:]))
