"""`cosi` and `kubectl cosi`: what people ask about buckets, and what they can do.

Every command uses the rights of whoever runs it, says what it could not see, and goes on. Reading,
deciding and printing are apart: `cosi_operator.sdk` asks the API server, `policy` and `render` are
pure, `commands` joins them, and `program` and `terminal` alone touch the terminal. kr8s is loaded
only by a command that needs a cluster.
"""

from collections.abc import Sequence

EXIT_INTERRUPTED = 130

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code: 0 ready, 1 something is not, 2 could not be done."""
    try:
        # Here, because Ctrl-C can come while the modules are loaded, which takes most of the time.
        from cosi_operator.cli import program

        return program.run(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
