"""The next state of a list-watch after each event: a pure function.

    Listing ──last page──> Watching ──lines──> Watching
       ^  ^──────────────────┤  │  410, ERROR line, unreadable line: list again
       │                     │  └─ ended, cut, silent, 429, 500, 502, 503: watch from `version`
       └── Pausing <─────────┘     every restart pauses first; 403: list every 60 s

The pause between restarts is a growing backoff, counted from the start of the failed attempt. So a
stream that was open for minutes restarts almost immediately, and a stream that always fails does
not cause a busy loop. The backoff starts again from its first step after a stream was open for 2
minutes, or when a stream delivered a line and the next watch continues from the same version.
Otherwise a proxy that often closes connections would delay changes by up to 30 s each time. (The
cases are those of client-go's reflector; the form is that of kube-rs' watcher.)
"""

from dataclasses import dataclass, replace
from typing import assert_never

from cosi_operator.settings import Backoff

BACKOFF = Backoff(base_s=0.8, cap_s=30.0, jitter=0.25)
HEALTHY_S = 120.0
POLL_S = 60.0
# The server-side timeout is random, so that a thousand clients do not reconnect in the same second.
WATCH_MIN_S = 300.0
WATCH_MAX_S = 600.0
# Statuses of ERROR lines and replies after which the resourceVersion is still valid. Without 504,
# because the server also sends 504 when it has not reached that version, for example after a
# restore.
RESUMABLE_STATUSES = (429, 500, 502, 503)


# --- states


@dataclass(frozen=True, slots=True)
class Listing:
    """Request the page at `token` ("" for the first); `failures` counts failures in a row."""

    started_s: float
    token: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Watching:
    """Read changes after `version`; the server ends the watch after `timeout_s`.

    `has_progress`: the stream has delivered a line.
    """

    started_s: float
    version: str
    timeout_s: float
    failures: int = 0
    has_progress: bool = False


@dataclass(frozen=True, slots=True)
class Pausing:
    """Wait `delay_s`, then watch from `version`, or list if `version` is None."""

    delay_s: float
    version: str | None
    failures: int


type State = Listing | Watching | Pausing


# --- what happened


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list arrived; `token` requests the next page and is "" after the last."""

    version: str
    token: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A change or a bookmark arrived, so every change up to `version` has arrived."""

    version: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ended the watch properly."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The connection was lost, ended within a line, or was half-open until the idle limit."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server replied with an unsuccessful HTTP status, or sent an ERROR line with that code."""

    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line or page does not conform to the API."""


@dataclass(frozen=True, slots=True)
class PauseEnded:
    """The pause is over."""


type Happening = Page | Progress | Ended | Silent | Refused | Unreadable | PauseEnded


def step(state: State, happening: Happening, now_s: float, draw: float) -> State:
    """Return the next state. `now_s` is monotonic time, `draw` is random in [0, 1)."""
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
            return _pause(state, None, asked_s, now_s, draw)
        case _:
            return _pause(state, None, None, now_s, draw)


def _after_watch(state: Watching, happening: Happening, now_s: float, draw: float) -> State:
    match happening:
        case Progress(version=version):
            return replace(state, version=version, has_progress=True)
        case Ended() | Silent():
            return _pause(state, state.version, None, now_s, draw)
        case Refused(status=403):
            # List without backoff, because the list before this watch succeeded. An administrator
            # may grant the right to watch at any time.
            return Pausing(POLL_S, None, 0)
        case Refused(status=status, retry_after_s=asked_s) if status in RESUMABLE_STATUSES:
            return _pause(state, state.version, asked_s, now_s, draw)
        case Refused(retry_after_s=asked_s):
            return _pause(state, None, asked_s, now_s, draw)
        case _:
            return _pause(state, None, None, now_s, draw)


def _watch_from(version: str, failures: int, now_s: float, draw: float) -> Watching:
    timeout_s = WATCH_MIN_S + (WATCH_MAX_S - WATCH_MIN_S) * draw
    return Watching(now_s, version, timeout_s, failures)


def _pause(
    state: Listing | Watching, version: str | None, asked_s: float | None, now_s: float, draw: float
) -> Pausing:
    age_s = now_s - state.started_s
    was_healthy = isinstance(state, Watching) and (
        age_s >= HEALTHY_S or (state.has_progress and version is not None)
    )
    failures = 1 if was_healthy else state.failures + 1
    # The backoff counts from start to start. The pause is never shorter than the first step.
    delay_s = max(BACKOFF.pause_s(failures, draw) - age_s, BACKOFF.pause_s(1, draw))
    return Pausing(max(delay_s, asked_s or 0.0), version, failures)
