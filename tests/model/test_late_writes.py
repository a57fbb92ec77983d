"""A write reaches the API server after its process was killed, or has given it up."""

from tests.model.pause import Point
from tests.model.processes import Run, Running
from tests.model.scenes import begin, key_works
from tests.model.world import add_access, add_claim

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES
from cosi_operator.outcome import Call


def test_a_secret_that_is_created_late_does_not_keep_old_keys() -> None:
    """The Secret with the first keys is created while the next Grant is under way."""
    world = begin()
    add_claim(world)
    world.run_until_idle()
    happened: list[str] = []

    def at_point(running: Running, run: Run, point: Point) -> None:
        created = point.verb == "create" and point.what.startswith(SECRETS.plural)
        if created and point.before and not happened:
            happened.append("killed")
            world.restart("sidecar")
        elif point.verb == Call.GRANT_ACCESS and not point.before and happened == ["killed"]:
            happened.append("landed")
            world.parts.late.pop()()

    world.at_point = at_point
    add_access(world, "reader")
    world.run_until_idle()
    assert happened == ["killed", "landed"]
    assert world.ready(BUCKET_ACCESSES, "reader")[0] == "True"
    assert key_works(world, "reader")
