"""What the demo shows: numbered steps, the commands, their output, and what was checked."""

import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

WIDTH = 96

_BOLD, _DIM, _RED, _GREEN, _CYAN = "1", "2", "31", "32", "36"


class CheckError(Exception):
    """Something isn't as it has to be; the message says what."""


def has_colour(out: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set to anything (no-color.org)."""
    return out.isatty() and not environment.get("NO_COLOR")


def masked(secret: str) -> str:
    """Return a secret's first four characters and dots: enough to tell two apart."""
    return f"{secret[:4]}{'.' * 8}" if len(secret) > 8 else "." * 8


class Screen:
    """Writes to one stream, and counts steps and checks."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        """Write to `out`, with or without colours."""
        self._out = out
        self._colour = colour
        self.steps = 0
        self.checks = 0
        self.title = "before the first step"

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step's title, and how long it took.

        Raises:
            CheckError: the step ended without having checked anything.
        """
        self.steps += 1
        self.title = f"{self.steps}. {title}"
        checks, started = self.checks, time.monotonic()
        self._line("")
        self._line(self.title, _BOLD, _CYAN)
        yield
        if self.checks == checks:
            raise CheckError("this step checked nothing")
        self._line(f"   {time.monotonic() - started:.1f} s", _DIM)

    def say(self, text: str) -> None:
        """Explain; the text is filled to the width of the screen."""
        for line in textwrap.wrap(" ".join(text.split()), WIDTH - 3) or [""]:
            self._line(f"   {line}".rstrip())

    def command(self, text: str) -> None:
        """Show a command as it could be typed."""
        self._line(f"   $ {text}", _BOLD)

    def output(self, text: str) -> None:
        """Show what a command wrote, as it came."""
        for line in text.rstrip("\n").splitlines():
            self._line(f"     {line}".rstrip())

    def check(self, holds: bool, text: str) -> None:
        """Show and count a check that holds; end the step on one that doesn't.

        Raises:
            CheckError: it doesn't hold.
        """
        if not holds:
            raise CheckError(f"expected: {text}")
        self.checks += 1
        self._line(f"   ✓ {text}", _GREEN)

    def failed(self, error: BaseException) -> None:
        """Show at which step it ended, and why."""
        self._line("")
        self._line(f"✗ failed at step {self.title}", _BOLD, _RED)
        self.output(str(error) or repr(error))

    def done(self, text: str) -> None:
        """Show the last word."""
        self._line("")
        self._line(text, _BOLD, _GREEN)

    def _line(self, text: str, *styles: str) -> None:
        if self._colour and styles and text:
            text = f"\x1b[{';'.join(styles)}m{text}\x1b[0m"
        print(text, file=self._out, flush=True)
