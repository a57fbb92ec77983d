"""What the Leases say about a driver's sidecar."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from cosi_operator.cli.presence import Lease, Presence, decode_lease, presence
from cosi_operator.plan.names import HOLDER_ANNOTATION, POLICY_ANNOTATION, VERSION_ANNOTATION

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
ACQUIRED = "2026-05-05T00:00:00.000000Z"


def lease(
    name: str = "d-example-com-cosi",
    *,
    renewed: str | None,
    notes: dict[str, str] | None = None,
    **spec: Any,
) -> Lease:
    given = {
        "holderIdentity": "one",
        "acquireTime": ACQUIRED,
        "renewTime": renewed,
        "leaseDurationSeconds": 15,
        **spec,
    }
    metadata = {"name": name, "annotations": notes}
    return decode_lease(msgspec.json.encode({"metadata": metadata, "spec": given}))


def notes_of(holder: str) -> dict[str, str]:
    return {HOLDER_ANNOTATION: holder, VERSION_ANNOTATION: "1.2", POLICY_ANNOTATION: "csi-like+1"}


FRESH, OLD = "2026-05-06T07:08:00.000000Z", "2026-05-06T07:00:00.000000Z"


@pytest.mark.parametrize(
    ("leases", "found"),
    [
        pytest.param(None, Presence("not visible"), id="no right to list them -> not visible"),
        pytest.param([], Presence("absent"), id="none -> absent"),
        pytest.param(
            [lease("other", renewed=FRESH)], Presence("absent"), id="of another driver -> absent"
        ),
        pytest.param(
            [lease(renewed=FRESH)], Presence("up", ACQUIRED), id="renewed -> up since it was taken"
        ),
        pytest.param(
            [lease(renewed=OLD)], Presence("down", OLD), id="run out -> down since the last renewal"
        ),
        pytest.param(
            [lease(renewed=FRESH, holderIdentity="")],
            Presence("down", FRESH),
            id="given back -> down",
        ),
        pytest.param(
            [lease(renewed=OLD, leaseDurationSeconds=3600)],
            Presence("up", ACQUIRED),
            id="a longer duration -> still up",
        ),
        pytest.param(
            [lease(renewed=OLD), lease(renewed=FRESH)],
            Presence("up", ACQUIRED),
            id="one in each of two namespaces -> the one that works",
        ),
        pytest.param(
            [lease(renewed=FRESH, notes=notes_of("one"))],
            Presence("up", ACQUIRED, "1.2", "csi-like+1"),
            id="the holder's notes -> its version and policy",
        ),
        pytest.param(
            [lease(renewed=FRESH, notes=notes_of("before"))],
            Presence("up", ACQUIRED),
            id="the notes of an earlier holder -> nothing",
        ),
        pytest.param(
            [lease(renewed=FRESH, holderIdentity="", notes=notes_of("one"))],
            Presence("down", FRESH, "1.2", "csi-like+1"),
            id="given back -> what it was",
        ),
        pytest.param([lease(renewed=None)], Presence("down", ""), id="never renewed -> down"),
    ],
)
def test_presence(leases: list[Lease] | None, found: Presence) -> None:
    assert presence("D.example.com", leases, NOW) == found
