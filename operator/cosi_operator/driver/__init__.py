"""The driver next to the sidecar: its socket, its calls, and whether it answers."""

import logging
import os

# gRPC reads this when it is imported, which only modules of this package do. What it would write
# to stderr holds bytes of the driver and passes by the scrubber.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# These two log what they can't decode, which are bytes of the driver too.
for _name in ("grpc._common", "grpc._cython.cygrpc"):
    logging.getLogger(_name).disabled = True
