"""The store: nothing that was read goes back in time, and nothing broken stops the rest."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosi_operator.api.view import Key
from cosi_operator.kube.store import Store
from cosi_operator.kube.trim import without_managed_fields


class Spec(msgspec.Struct, frozen=True):
    driver: str = ""


class Thing(msgspec.Struct, frozen=True):
    """A view with an index on what it names."""

    spec: Spec
    metadata: dict[str, Any]

    @property
    def version(self) -> str:
        return str(self.metadata["resourceVersion"])


decode = msgspec.json.Decoder(Thing).decode


def by_driver(thing: Thing) -> Iterable[str]:
    return [thing.spec.driver]


def raw(name: str, version: object, *, uid: str = "", driver: object = "d") -> bytes:
    metadata = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return json.dumps({"metadata": metadata, "spec": {"driver": driver}}).encode()


def new_store() -> Store[Thing]:
    return Store(decode, {"driver": by_driver})


def versions(store: Store[Thing]) -> dict[str, str]:
    return {key.name: cached.view.version for key, cached in store.items()}


A = Key("", "a")


def test_an_object_is_added_changed_and_removed() -> None:
    store = new_store()
    came = store.upsert(raw("a", 1))
    assert came is not None
    assert (came[0], came[1].version if came[1] else "") == (None, "1")
    changed = store.upsert(raw("a", 2))
    assert changed is not None
    assert [thing and thing.version for thing in changed] == ["1", "2"]
    gone = store.remove(A, "3")
    assert gone is not None
    assert gone.version == "2"
    assert (store.get(A), len(store), store.remove(A, "4")) == (None, 0, None)


@pytest.mark.parametrize(
    ("first", "then", "held"),
    [
        pytest.param("9", "10", "10", id="versions are numbers, not text"),
        pytest.param("10", "9", "10", id="a late watch line does not undo our own write"),
        pytest.param("10", "10", "10", id="the watch event of our own write -> no change"),
        pytest.param("b7", "a1", "a1", id="opaque versions -> the latest call takes precedence"),
        pytest.param("7", "a1", "a1", id="mixed versions -> the latest call takes precedence"),
    ],
)
def test_which_of_two_copies_is_held(first: str, then: str, held: str) -> None:
    store = new_store()
    store.upsert(raw("a", first))
    taken = store.upsert(raw("a", then))
    assert versions(store) == {"a": held}
    assert (taken is not None) == (held == then != first)


def test_a_late_reply_brings_no_deleted_object_back() -> None:
    store = new_store()
    store.upsert(raw("a", 5))
    store.remove(A, "7")
    assert store.upsert(raw("a", 6)) is None
    assert store.upsert(raw("a", "opaque")) is None
    assert len(store) == 0


def test_a_late_reply_about_an_object_that_was_deleted_unseen_is_ignored() -> None:
    store = new_store()
    store.replace([], "10")
    assert store.upsert(raw("a", 8)) is None
    store.advance("20")
    assert store.upsert(raw("b", 15)) is None
    assert store.upsert(raw("b", 21)) is not None


def test_a_successor_of_the_same_name_replaces_a_deleted_object() -> None:
    store = new_store()
    store.upsert(raw("a", 5, uid="first"))
    assert store.upsert(raw("a", 9, uid="second")) is not None
    assert store.remove(A, "7") is None, "the deletion of the first comes late"
    assert store.upsert(raw("a", 6, uid="first")) is None
    assert versions(store) == {"a": "9"}


def test_a_list_removes_what_vanished_and_keeps_what_we_wrote_since() -> None:
    store = new_store()
    store.replace([raw("vanishes", 1), raw("stays", 2), raw("changes", 3)], "5")
    store.upsert(raw("ours", 12))
    store.upsert(raw("stays", 11))
    told = list(store.replace([raw("stays", 2), raw("changes", 9), raw("comes", 8)], "10"))
    assert versions(store) == {"stays": "11", "changes": "9", "ours": "12", "comes": "8"}
    assert {(key.name, old is None, new is None) for key, old, new in told} == {
        ("changes", False, False),
        ("comes", True, False),
        ("vanishes", False, True),
    }


def test_an_object_that_only_an_old_list_lacks_is_restored_by_the_watch() -> None:
    """A cache of the API server may lag: then the list is old, and nothing was deleted."""
    store = new_store()
    store.replace([], "1")
    store.upsert(raw("a", 5))
    store.advance("5")
    assert [key.name for key, _, _ in store.replace([], "1")] == ["a"]
    assert store.upsert(raw("a", 5)) is not None
    assert versions(store) == {"a": "5"}


def test_a_list_older_than_what_was_seen_means_a_restored_backup() -> None:
    store = new_store()
    store.replace([raw("a", 100), raw("b", 101)], "200")
    store.remove(A, "201")
    store.replace([raw("a", 50), raw("b", 40)], "60")
    assert versions(store) == {"a": "50", "b": "40"}
    assert store.upsert(raw("b", 61)) is not None


def test_a_list_does_not_bring_back_what_we_saw_deleted_since() -> None:
    store = new_store()
    store.replace([raw("a", 1)], "5")
    store.remove(A, "7")  # the reply to the write that took off its last finalizer
    assert list(store.replace([raw("a", 1)], "6")) == []
    assert len(store) == 0


def test_opaque_versions_follow_the_lists() -> None:
    store = new_store()
    store.replace([raw("a", "x1"), raw("b", "x2")], "x3")
    store.remove(Key("", "b"), "y0")
    store.replace([raw("c", "y1")], "y2")
    assert versions(store) == {"c": "y1"}


def test_a_broken_object_is_held_separately_and_does_not_affect_others() -> None:
    store = new_store()
    store.upsert(raw("a", 1))
    assert store.upsert(raw("a", 2, driver=7)) is not None
    assert store.get(A) is None
    broken = store.broken(A)
    assert broken is not None
    assert broken.error == "Expected `str`, got `int` - at `$.spec.driver`"
    assert (list(store.items()), list(store.keys()), len(store)) == ([], [A], 1)
    assert list(store.by_index("driver", "d")) == []
    assert store.upsert(raw("b", 3)) is not None
    assert store.upsert(raw("a", 4)) is not None
    assert store.broken(A) is None
    store.upsert(raw("a", 5, driver=7))
    assert store.remove(A, "6") is None
    assert store.broken(A) is None


def test_json_that_is_not_an_object_raises() -> None:
    with pytest.raises(msgspec.DecodeError):
        new_store().upsert(b'{"kind": "Status"}')


def test_an_index_follows_changes_and_removals() -> None:
    store = new_store()
    store.upsert(raw("a", 1, driver="x"))
    store.upsert(raw("b", 2, driver="x"))
    assert [c.view.metadata["name"] for c in store.by_index("driver", "x")] == ["a", "b"]
    store.upsert(raw("a", 3, driver="y"))
    store.remove(Key("", "b"), "4")
    assert list(store.by_index("driver", "x")) == []
    assert [c.view.version for c in store.by_index("driver", "y")] == ["3"]


def test_the_store_may_change_while_it_is_walked() -> None:
    store = new_store()
    store.upsert(raw("a", 1))
    store.upsert(raw("b", 2))
    for walk in (
        lambda: store.keys(),
        lambda: store.items(),
        lambda: store.by_index("driver", "d"),
    ):
        for number, _ in enumerate(walk()):
            store.upsert(raw(f"new-{number}", 100 + len(store)))


def test_managed_fields_are_dropped_and_nothing_else_is_touched() -> None:
    kept = b'{"kind":"Bucket","metadata":{"name":"a","labels":{"x":"\xc3\xa9"}},"n":1.50e2}'
    full = kept.replace(b'"name"', b'"managedFields":[{"manager":"m"}],"name"')
    assert without_managed_fields(full) == kept
    assert without_managed_fields(kept) is kept
    quoted = b'{"metadata":{"name":"a","annotations":{"a":"\\"managedFields\\""}}}'
    assert without_managed_fields(quoted) == quoted
    key = b'{"metadata":{"name":"a","annotations":{"managedFields":"mine"}}}'
    assert without_managed_fields(key) is key
    store = new_store()
    store.upsert(raw("a", 1).replace(b'"name"', b'"managedFields":[],"name"'))
    cached = store.get(A)
    assert cached is not None
    assert b"managedFields" not in cached.raw


@given(
    history=st.lists(st.booleans(), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_replies_in_any_order_never_beat_the_watch(history: list[bool], order: Any) -> None:
    """Each write is told twice: by the watch, in order, and by its reply, at any later time."""
    store = new_store()
    exists, uid = False, 0
    late: list[bytes] = []
    for version, write in enumerate(history, start=1):
        if write:
            uid, exists = (uid if exists else version), True
            late.append(raw("a", version, uid=str(uid)))
            store.upsert(late[-1])
        elif exists:
            exists = False
            store.remove(A, str(version))
        store.advance(str(version))
        store.upsert(order.choice(late) if late else raw("z", 0))
        held = store.get(A)
        assert (held is not None) == exists
        if held is not None:
            assert held.view.version == str(max(v for v, w in enumerate(history[:version], 1) if w))


def test_the_memory_of_deletions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosi_operator.kube.store.TOMBSTONE_LIMIT", 2)
    store = new_store()
    for number, name in enumerate("abc"):
        store.upsert(raw(name, 10 * number + 1))
        store.remove(Key("", name), str(10 * number + 2))
    # The uids of the last two deletions are remembered, so a late copy revives neither object.
    revived = [name for name in "abc" if store.upsert(raw(name, 100)) is not None]
    assert revived == ["a"]
