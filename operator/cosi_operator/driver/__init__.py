"""The driver next to the sidecar: its socket, its calls, and whether it answers."""

import logging
import os

# gRPC reads this when it is imported, which only modules of this package do. Otherwise it would
# write bytes of the driver to stderr without scrubbing them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# These loggers write bytes of the driver that they can't decode.
for _name in ("grpc._common", "grpc._cython.cygrpc"):
    logging.getLogger(_name).disabled = True
