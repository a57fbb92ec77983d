"""A request fails for minutes: the object that waits for it says so, and what is waited for."""

import pytest
from tests.model.hostile import HostileWorld
from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, bucket_of, rotate
from tests.model.world import add_access, add_claim

from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.kube.errors import ApiError, ApiSilent, Conflict, ServerError, TooManyRequests

WEBHOOK = 'failed calling webhook "check.example.com"'
ERRORS: list[ApiError | ApiSilent] = [
    ServerError(500, "InternalError", WEBHOOK),
    TooManyRequests(429, "TooManyRequests", "the server is busy"),
    Conflict(409, "Conflict", "the object has been modified"),
    ApiSilent("no answer within 10 s"),
]


@pytest.fixture
def world() -> HostileWorld:
    return begin()


def fail(world: HostileWorld, request: str, error: ApiError | ApiSilent) -> None:
    """All requests of this kind fail, such as "update buckets"."""

    def at_point(_running: Running, _run: Run, point: Point) -> ApiError | ApiSilent | None:
        return error if point.before and f"{point.verb} {point.what}".startswith(request) else None

    world.at_point = at_point


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("request_", ["update buckets", "create secrets", "update bucketaccesses"])
def test_an_access_that_waits_for_a_request_says_so_within_a_minute(
    world: HostileWorld, request_: str, error: ApiError | ApiSilent
) -> None:
    add_claim(world)
    world.run_until_idle(limit_s=30.0)
    fail(world, request_, error)
    add_access(world, "a1")
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "APIServerUnavailable"
    message = world.found(BUCKET_ACCESSES, "a1")["status"]["conditions"][0]["message"]
    assert message.startswith("Requests to the API server have failed since 2026-01-01T00:00:0")
    told = [e for e in world.parts.told if e.reason == "APIServerUnavailable"]
    assert len(told) == 1
    world.run_until_idle(limit_s=600.0)
    told = [e for e in world.parts.told if e.reason == "APIServerUnavailable"]
    assert len(told) <= 20
    world.at_point = lambda *_: None
    world.run_until_idle(limit_s=600.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[0] == "True"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_claim_whose_bucket_cannot_be_created_or_changed_says_so(
    world: HostileWorld, error: ApiError | ApiSilent
) -> None:
    fail(world, "create buckets", error)
    add_claim(world)
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "APIServerUnavailable"
    fail(world, "update buckets", error)
    world.run_until_idle(limit_s=360.0)
    assert world.ready(BUCKETS, bucket_of(world))[1] == "APIServerUnavailable"
    assert world.ready(BUCKET_CLAIMS, "photos")[1] == "APIServerUnavailable"
    world.at_point = lambda *_: None
    world.run_until_idle(limit_s=600.0)
    assert world.ready(BUCKET_CLAIMS, "photos")[0] == "True"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_deletion_that_waits_for_a_request_says_so(
    world: HostileWorld, error: ApiError | ApiSilent
) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    fail(world, "delete secrets", error)
    world.user_deletes(BUCKET_ACCESSES, "a1")
    world.run_until_idle(limit_s=60.0)
    assert world.ready(BUCKET_ACCESSES, "a1")[1] == "APIServerUnavailable"
    world.at_point = lambda *_: None
    world.run_until_idle(limit_s=600.0)
    assert world.find(BUCKET_ACCESSES, "a1") is None


def test_requests_that_failed_for_a_moment_are_not_reported(world: HostileWorld) -> None:
    add_claim(world)
    add_access(world, "a1")
    world.run_until_idle(limit_s=30.0)
    for round_ in range(10):
        fail(world, "update buckets", ERRORS[0])
        rotate(world, "a1", str(round_))
        world.run_until_idle(limit_s=10.0)
        world.at_point = lambda *_: None
        world.run_until_idle(limit_s=20.0)
    assert not [e for e in world.parts.told if e.reason == "APIServerUnavailable"]
