"""Every way a list or a watch ends, and where it leads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.kube.watch_state import (
    BACKOFF,
    Ended,
    Happening,
    Listing,
    Page,
    PauseEnded,
    Pausing,
    Progress,
    Refused,
    Silent,
    State,
    Unreadable,
    Watching,
    step,
)

LISTING = Listing(started_s=0.0)
WATCHING = Watching(started_s=0.0, version="7", timeout_s=400.0)
LONG_S = 200.0
AGAIN = Pausing(BACKOFF.pause_s(1, 1.0), "7", failures=1)
LIST_AGAIN = Pausing(BACKOFF.pause_s(1, 1.0), None, failures=1)


@pytest.mark.parametrize(
    ("state", "happening", "after_s", "then"),
    [
        pytest.param(
            LISTING,
            Page("7", "t"),
            1.0,
            Listing(0.0, "t"),
            id="a page with a token -> the next page",
        ),
        pytest.param(
            LISTING, Page("7", ""), 1.0, Watching(1.0, "7", 600.0), id="the last page -> watch"
        ),
        pytest.param(
            Listing(0.0, "t", 3),
            Refused(410),
            0.0,
            Pausing(8.0, None, 4),
            id="the continue token is too old -> list from the start",
        ),
        pytest.param(
            LISTING,
            Refused(403),
            0.0,
            LIST_AGAIN,
            id="listing is forbidden -> list again after a pause",
        ),
        pytest.param(
            LISTING,
            Refused(404),
            0.0,
            LIST_AGAIN,
            id="the CRD is missing -> list again after a pause",
        ),
        pytest.param(
            LISTING,
            Refused(429, 17.0),
            0.0,
            Pausing(17.0, None, 1),
            id="a list gets 429 -> wait as long as the server asks",
        ),
        pytest.param(
            LISTING,
            Silent(),
            0.0,
            LIST_AGAIN,
            id="a list gets no answer -> list again after a pause",
        ),
        pytest.param(
            LISTING,
            Unreadable(),
            0.0,
            LIST_AGAIN,
            id="a list can't be decoded -> list again after a pause",
        ),
        pytest.param(
            WATCHING,
            Progress("8"),
            1.0,
            Watching(0.0, "8", 400.0, has_progress=True),
            id="a change or a bookmark -> the version advances",
        ),
        pytest.param(
            WATCHING,
            Ended(),
            LONG_S,
            AGAIN,
            id="the watch ends as agreed -> watch from the same version",
        ),
        pytest.param(
            WATCHING, Ended(), 0.1, AGAIN, id="the watch ends at once -> watch after a pause"
        ),
        pytest.param(
            WATCHING,
            Silent(),
            LONG_S,
            AGAIN,
            id="the watch is cut or half-open -> watch from the same version",
        ),
        pytest.param(WATCHING, Refused(410), LONG_S, LIST_AGAIN, id="410 -> list"),
        pytest.param(
            WATCHING,
            Refused(504),
            LONG_S,
            LIST_AGAIN,
            id="the version is too large for the server -> list",
        ),
        pytest.param(WATCHING, Refused(400), LONG_S, LIST_AGAIN, id="400 -> list"),
        pytest.param(WATCHING, Refused(401), LONG_S, LIST_AGAIN, id="401 -> list"),
        pytest.param(
            WATCHING, Unreadable(), LONG_S, LIST_AGAIN, id="a line can't be decoded -> list"
        ),
        pytest.param(
            WATCHING,
            Refused(429, 9.0),
            LONG_S,
            Pausing(9.0, "7", 1),
            id="429 -> watch as late as the server asks",
        ),
        pytest.param(
            WATCHING, Refused(500), LONG_S, AGAIN, id="500 -> watch from the same version"
        ),
        pytest.param(
            WATCHING, Refused(503), LONG_S, AGAIN, id="503 -> watch from the same version"
        ),
        pytest.param(
            WATCHING,
            Refused(403),
            0.0,
            Pausing(60.0, None, 0),
            id="watching is forbidden -> list every 60 s",
        ),
        pytest.param(
            Pausing(1.0, "7", 3),
            PauseEnded(),
            1.0,
            Watching(1.0, "7", 600.0, 3),
            id="the pause before a watch ends -> watch",
        ),
        pytest.param(
            Pausing(1.0, None, 3),
            PauseEnded(),
            1.0,
            Listing(1.0, "", 3),
            id="the pause before a list ends -> list",
        ),
    ],
)
def test_what_follows(state: State, happening: Happening, after_s: float, then: State) -> None:
    assert step(state, happening, after_s, 1.0) == then


def test_the_length_of_a_watch_is_drawn_between_five_and_ten_minutes() -> None:
    lengths = [step(LISTING, Page("7", ""), 0.0, draw) for draw in (0.0, 0.5, 1.0)]
    assert [isinstance(s, Watching) and s.timeout_s for s in lengths] == [300, 450, 600]


def test_the_backoff_doubles_up_to_thirty_seconds_and_is_forgotten_after_two_minutes() -> None:
    delays = []
    state: State = WATCHING
    for _ in range(8):
        rest = step(state, Silent(), 0.0, 1.0)
        assert isinstance(rest, Pausing)
        delays.append(rest.delay_s)
        state = step(rest, PauseEnded(), 0.0, 1.0)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert step(state, Silent(), 119.0, 1.0) == Pausing(1.0, "7", 9)
    assert step(state, Silent(), 120.0, 1.0) == Pausing(1.0, "7", 1)


def test_a_watch_with_progress_restarts_after_the_shortest_pause_and_a_new_list_does_not() -> None:
    state = step(Watching(0.0, "7", 400.0, failures=9), Progress("8"), 1.0, 1.0)
    assert step(state, Silent(), 1.0, 1.0) == Pausing(1.0, "8", 1)
    assert step(state, Refused(410), 1.0, 1.0) == Pausing(29.0, None, 10)


def test_restarts_are_spaced_from_start_to_start() -> None:
    """A balancer that cuts each stream after 20 s does not leave us blind for 30 s each time."""
    state = Watching(0.0, "7", 400.0, failures=9)
    rest = step(state, Silent(), 20.0, 1.0)
    assert rest == Pausing(10.0, "7", 10)


@given(
    happenings=st.lists(
        st.sampled_from([Ended(), Silent(), Refused(410), Refused(500), Refused(403), Unreadable()])
    ),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_there_is_a_pause_before_every_restart(happenings: list[Happening], draw: float) -> None:
    state: State = LISTING
    for happening in happenings:
        state = step(state, happening, 0.0, draw)
        assert isinstance(state, Pausing)
        assert BACKOFF.base_s <= state.delay_s <= 2 * BACKOFF.cap_s
        state = step(state, PauseEnded(), 0.0, draw)
