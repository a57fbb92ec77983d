"""The next state of a list-watch after each event: a pure function.

    Listing ──last page──> Watching ──lines──> Watching
       ^  ^──────────────────┤  │  410, ERROR line, unreadable line: list again
       │                     │  └─ cut, ended, silent, 429, 5xx: watch again from where it was
       └── Pausing <─────────┘     each restart rests first; 403: list every 60 s instead

Restarts are spaced by a growing backoff counted from the start of the try that failed, so a
stream that lived for a while starts again nearly at once, and a dead one can't spin. The backoff
is forgotten after 2 healthy minutes, and by a watch that brought something and goes on from there:
a proxy that cuts often must not leave us blind for 30 s each time. (The cases are those of
client-go's reflector; the form is that of kube-rs' watcher.)
"""

from dataclasses import dataclass, replace
from typing import assert_never

from cosi_operator.settings import Backoff

BACKOFF = Backoff(base_s=0.8, cap_s=30.0, jitter=0.25)
HEALTHY_S = 120.0
POLL_S = 60.0
# Random, so that a thousand clients do not all come back in the same second.
WATCH_MIN_S = 300.0
WATCH_MAX_S = 600.0
# ERROR lines and refusals after which the resourceVersion is still good. Not 504: that is also
# how the server says that it has not yet reached that version, after a restore for instance.
RESUMABLE_STATUSES = (429, 500, 502, 503)


# --- states


@dataclass(frozen=True, slots=True)
class Listing:
    """Ask for the page at `token` ("" for the first); `failures` in a row so far."""

    started_s: float
    token: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Watching:
    """Read changes after `version`; the server ends the watch after `timeout_s`.

    fruitful: it has brought a line.
    """

    started_s: float
    version: str
    timeout_s: float
    failures: int = 0
    fruitful: bool = False


@dataclass(frozen=True, slots=True)
class Pausing:
    """Wait `delay_s`, then watch from `version`, or list if that is None."""

    delay_s: float
    version: str | None
    failures: int


type State = Listing | Watching | Pausing


# --- what happened


@dataclass(frozen=True, slots=True)
class Page:
    """A page arrived; `token` is that of the next page, "" after the last."""

    version: str
    token: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A change or a bookmark: all is known up to `version`."""

    version: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ended the watch in order."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The connection was lost, cut within a line, or half-open until the idle limit."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An HTTP status that is no success, or an ERROR line with that code."""

    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line or page that breaks the API's contract."""


@dataclass(frozen=True, slots=True)
class PauseEnded:
    """The pause is over."""


type Happening = Page | Progress | Ended | Silent | Refused | Unreadable | PauseEnded


def step(state: State, happening: Happening, now_s: float, draw: float) -> State:
    """The next state. `now_s` is monotonic time, `draw` is random in [0, 1)."""
    match state:
        case Pausing(version=version, failures=failures):
            if version is None:
                return Listing(now_s, failures=failures)
            return _watch_from(version, failures, now_s, draw)
        case Listing():
            return _after_list(state, happening, now_s, draw)
        case Watching():
            return _after_watch(state, happening, now_s, draw)
        case _:
            assert_never(state)


def _after_list(state: Listing, happening: Happening, now_s: float, draw: float) -> State:
    match happening:
        case Page(version=version, token=""):
            return _watch_from(version, state.failures, now_s, draw)
        case Page(token=token):
            return Listing(state.started_s, token, state.failures)
        case Refused(retry_after_s=asked_s):
            return _rest(state, None, asked_s, now_s, draw)
        case _:
            return _rest(state, None, None, now_s, draw)


def _after_watch(state: Watching, happening: Happening, now_s: float, draw: float) -> State:
    match happening:
        case Progress(version=version):
            return replace(state, version=version, fruitful=True)
        case Ended() | Silent():
            return _rest(state, state.version, None, now_s, draw)
        case Refused(status=403):
            # The list before it went well; and the right may be granted any time.
            return Pausing(POLL_S, None, 0)
        case Refused(status=status, retry_after_s=asked_s) if status in RESUMABLE_STATUSES:
            return _rest(state, state.version, asked_s, now_s, draw)
        case Refused(retry_after_s=asked_s):
            return _rest(state, None, asked_s, now_s, draw)
        case _:
            return _rest(state, None, None, now_s, draw)


def _watch_from(version: str, failures: int, now_s: float, draw: float) -> Watching:
    timeout_s = WATCH_MIN_S + (WATCH_MAX_S - WATCH_MIN_S) * draw
    return Watching(now_s, version, timeout_s, failures)


def _rest(
    state: Listing | Watching, version: str | None, asked_s: float | None, now_s: float, draw: float
) -> Pausing:
    lived_s = now_s - state.started_s
    goes_on = version is not None
    healthy = isinstance(state, Watching) and (lived_s >= HEALTHY_S or (state.fruitful and goes_on))
    failures = 1 if healthy else state.failures + 1
    # From start to start, but never without any pause.
    delay_s = max(BACKOFF.pause_s(failures, draw) - lived_s, BACKOFF.pause_s(1, draw))
    return Pausing(max(delay_s, asked_s or 0.0), version, failures)
