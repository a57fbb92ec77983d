"""What a command ends with: text and an exit code, or an error for the user."""

from dataclasses import dataclass

EXIT_OK, EXIT_NOT_READY, EXIT_FAILED = 0, 1, 2


class CommandError(Exception):
    """It could not be done; the text says what and, where it is known, what to do."""


@dataclass(frozen=True, slots=True)
class Printed:
    """`out` for standard output, `note` for standard error.

    `facts`: what `--watch` compares, where the text has ages, which always change.
    """

    out: str
    code: int = EXIT_OK
    note: str = ""
    facts: object = None
