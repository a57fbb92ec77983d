"""The small world has no counterexample within the bound, and the search would find one.

`make explore-full` goes further.
"""

import pytest
import structlog
from tests.explore.canonical import state_hash
from tests.explore.edits import begin, edits
from tests.explore.machine import Machine, Scene
from tests.explore.mutations import MUTATIONS, Mutation
from tests.explore.scenes import SCENES
from tests.explore.search import Bound, Result, Search
from tests.explore.snapshots import Snapshot

BOUND = Bound(1, 1)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with structlog.testing.capture_logs():
        yield


def explored(scene: Scene, bound: Bound) -> Result:
    return Search(scene, bound).run()


@pytest.mark.timeout(600)  # 1 to 30 s of CPU; the machine may be busy
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_every_state_within_the_bound_keeps_the_promises(scene: Scene) -> None:
    result = explored(scene, BOUND)
    assert not result.found, "\n".join(map(str, result.found))
    assert result.complete
    assert result.rests > 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.words)
def test_broken_decision_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation.apply(monkeypatch)
    assert explored(mutation.scene, mutation.bound).found


def test_two_schedules_that_lead_to_the_same_world_are_one_state() -> None:
    """Other UIDs, versions, keys and times make no other state."""
    scene = Scene("one access", accesses=1)
    first, second = begin(scene), begin(scene)
    words = {move.words: move for move in edits(second)}
    for move in ("tenant deletes access a1", "tenant creates access a1"):
        words[move].act(second)
        for machine in (first, second):
            machine.world.run_until_idle(limit_s=30.0)
    for machine in (first, second):
        machine.world.clock.advance(5000.0)
        for name in ("controller", "sidecar"):
            machine.world.restart(name)
        while machine.advance():
            pass
    assert state_hash(first) == state_hash(second)


@pytest.mark.parametrize("steps", range(8))
def test_restored_state_goes_the_same_way_again(steps: int) -> None:
    machine = Machine(Scene("fresh", ready=False))
    for _ in range(steps):
        machine.advance()
    here = Snapshot(machine)
    before = state_hash(machine)
    after = []
    for _ in range(2):
        while machine.advance():
            pass
        after.append(state_hash(machine))
        machine.wrong_at_rest()
        here.restore()
        assert state_hash(machine) == before
    assert after[0] == after[1]


def test_counterexample_is_told_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    (mutation,) = [m for m in MUTATIONS if "while the claim lives" in m.words]
    mutation.apply(monkeypatch)
    (found,) = explored(mutation.scene, mutation.bound).found
    assert found.moves() == ["administrator deletes Bucket 1"]
    assert "  * administrator deletes Bucket 1\n" in str(found)
    assert "driver: DriverDeleteBucket" in str(found)
    assert str(found).endswith("in use by a claim")
