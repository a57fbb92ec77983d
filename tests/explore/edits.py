"""Moves from outside: what tenants, administrators and machines do to a state.

Nearly all are rules of the hostile model with fixed arguments, so that there are few enough to try
each of them in every state. A move has words, for the trace.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.explore.machine import PROCESSES, Machine, Scene
from tests.model.hostile import DRILL
from tests.model.world import NAMESPACE

type Act = Callable[[Machine], object]


@dataclass(frozen=True)
class Move:
    words: str
    act: Act = field(compare=False)


def _call(words: str, method: str, **arguments: object) -> Move:
    """A rule of the hostile model, with these arguments."""
    return Move(words, lambda machine: getattr(machine, method)(**arguments))


def _kill(name: str) -> Move:
    return Move(f"the {name} is killed", lambda machine: machine.world.restart(name))


def _wait(seconds: float) -> Move:
    return Move(f"{seconds:.0f} s pass", lambda machine: machine.world.clock.advance(seconds))


# --- edits

TENANT = [
    _call("tenant deletes claim c1", "delete", name="c1"),
    _call("tenant deletes access a1", "delete", name="a1"),
    _call("tenant deletes access a2", "delete", name="a2"),
    _call("tenant creates claim c1 (gold)", "create_claim", name="c1", leads_to="gold"),
    _call("tenant creates claim c1 (old)", "create_claim", name="c1", leads_to="old"),
    _call("tenant creates access a1", "create_access", name="a1", claim="c1", own_secret=True),
    _call("tenant creates access a2", "create_access", name="a2", claim="c1", own_secret=True),
    _call("tenant rotates a1 (1)", "rotates", space=NAMESPACE, name="a1", token="1"),
    _call("tenant rotates a1 (2)", "rotates", space=NAMESPACE, name="a1", token="2"),
    _call("tenant retries c1", "ask_for_a_retry", name="c1", token="1"),
    _call("tenant retries a1", "ask_for_a_retry", name="a1", token="1"),
    *(
        _call(
            f"a1-secret is removed by force{' and made by someone' if theirs else ''}",
            "a_secret_is_removed_by_force_or_made_by_someone",
            name="a1-secret",
            theirs=theirs,
        )
        for theirs in (False, True)
    ),
    *(
        _call(
            f"the quota {'refuses' if refused else 'allows'} a1-secret",
            "secrets_are_refused_or_not",
            name="a1-secret",
            refused=refused,
        )
        for refused in (True, False)
    ),
    *(
        _call(
            f"tenant toggles a foreign finalizer on {kind}",
            "adds_or_removes_a_foreign_finalizer",
            space=NAMESPACE,
            kind=kind,
            index=0,
        )
        for kind in ("access", "claim")
    ),
    _call("tenant breaks a1-secret", "edits_the_bucket_info", space=NAMESPACE, name="a1"),
    *(
        _call(
            f"tenant sets {name} of a1 to {value}",
            "edits_the_spec_of_an_access",
            space=NAMESPACE,
            name="a1",
            field=name,
            value=value,
        )
        for name, value in (
            ("credentialsSecretName", "a2-secret"),
            ("credentialsSecretName", "a1-secret"),
            ("bucketClaimName", "c2"),
            ("bucketClaimName", "c1"),
        )
    ),
    *(
        _call(f"tenant edits claim c1 to {name}", "edit_claim", name="c1", leads_to=name)
        for name in ("silver",)
    ),
]
OTHER_TENANT = [
    *(
        _call(
            f"other tenant creates claim c1 ({leads_to})",
            "another_claim",
            space=DRILL,
            name="c1",
            leads_to=leads_to,
        )
        for leads_to in ("gold", "old")
    ),
    _call("other tenant creates access a1", "another_access", space=DRILL, name="a1", claim="c1"),
    *(
        _call(
            f"{who} forges the status of a1 (account {victim})",
            "forges_the_status_of_an_access",
            space=space,
            name="a1",
            victim=victim,
        )
        for who, space, victim in (
            ("tenant", NAMESPACE, 0),
            ("tenant", NAMESPACE, 1),
            ("other tenant", DRILL, 0),
        )
    ),
    *(
        _call(
            f"{who} forges the status of c1 (Bucket {victim})",
            "forges_the_status_of_a_claim",
            space=space,
            name="c1",
            victim=victim,
        )
        for who, space, victim in (
            ("tenant", NAMESPACE, 1),
            ("other tenant", DRILL, 0),
        )
    ),
    *(
        _call(
            f"{who} forges annotations and a Secret of a1",
            "forges_annotations_and_a_secret",
            space=space,
            name="a1",
            victim=0,
        )
        for who, space in (("tenant", NAMESPACE), ("other tenant", DRILL))
    ),
    _call("other tenant deletes claim c1", "is_deleted_in_the_drill", name="c1"),
    _call("other tenant deletes access a1", "is_deleted_in_the_drill", name="a1"),
]
ADMINISTRATOR = [
    *(
        _call(f"administrator deletes Bucket {index}", "delete_bucket", index=index)
        for index in (0, 1)
    ),
    *(
        _call(
            f"a restore copies {name} into the drill{' with its Secret' if secret else ''}",
            "is_copied_into_a_drill",
            name=name,
            with_secret=secret,
        )
        for name, secret in (("c1", False), ("a1", False), ("a1", True))
    ),
    _call("the drill is thrown away", "the_drill_is_thrown_away"),
    *(
        _call(
            f"GitOps applies Bucket old for {name or 'no claim'}",
            "gitops_applies_the_static_bucket_again",
            space=NAMESPACE,
            name=name,
        )
        for name in ("c1", "")
    ),
    *(
        _call(
            f"administrator binds Bucket {index} to c1 of {space}",
            "an_administrator_binds_a_bucket",
            index=index,
            space=space,
            name="c1",
        )
        for index in (0, 1)
        for space in (NAMESPACE, DRILL)
    ),
    *(
        _call(
            f"administrator sets the driver of Bucket 0 to {'ours' if there else 'another'}",
            "an_administrator_edits_the_driver",
            index=0,
            there=there,
        )
        for there in (False, True)
    ),
    *(
        _call(
            f"Bucket 0 is copied without {sorted(without) or 'loss'}",
            "a_bucket_is_copied",
            index=0,
            without=without,
        )
        for without in (set(), {"status"}, {"finalizers", "annotations", "status"})
    ),
    *(
        _call(
            f"the copy of a Bucket is deleted{' by force' if forced else ''}",
            "the_copy_of_a_bucket_is_deleted",
            forced=forced,
        )
        for forced in (False, True)
    ),
    *(
        _call(
            f"the access class {'comes' if there else 'goes'}",
            "access_class_goes_or_comes",
            there=there,
        )
        for there in (False, True)
    ),
    _call("administrator edits class gold", "edit_class", name="gold", tier="2", driver=True),
]
DESTROYER = {
    "none": [],
    "strips finalizers": [
        _call(f"{name} loses its finalizers", "strips_the_finalizers", space=s, kind=k, name=name)
        for k, name, s in (("claim", "c1", NAMESPACE), ("access", "a1", NAMESPACE))
    ],
    "replaces Buckets": [
        _call(f"Bucket {i} loses its record", "a_bucket_is_replaced_without_its_record", index=i)
        for i in (0, 1)
    ],
    "puts back older records": [
        _call(
            f"the record of Bucket 0 is {'saved' if take else 'put back'}",
            "an_older_record_is_put_back",
            index=0,
            take=take,
        )
        for take in (True, False)
    ],
    "applies older Buckets": [
        _call(
            f"Bucket 0 is {'saved' if take else 'applied again'}",
            "an_older_bucket_is_applied",
            index=0,
            take=take,
        )
        for take in (True, False)
    ],
    "removes Buckets": [
        _call(f"Bucket {i} is removed by force", "a_bucket_is_removed_by_force", index=i)
        for i in (0, 1)
    ],
    "Go sidecar of another driver": [
        _call(
            "a Go sidecar of another driver sees the deletion of Bucket 0",
            "a_go_sidecar_of_another_driver_sees_a_deletion",
            index=0,
        )
    ],
}
MACHINES = [
    *map(_kill, PROCESSES),
    _call("the driver goes", "driver_process", change="goes"),
    _call("the driver comes back", "driver_process", change="comes"),
    _call("the driver is replaced", "driver_process", change="is replaced"),
    *map(_wait, (10.0, 130.0, 700.0)),
]


def edits(machine: Machine) -> list[Move]:
    """What people and machines can do to a state."""
    return [*TENANT, *OTHER_TENANT, *ADMINISTRATOR, *DESTROYER[machine.destroyer], *MACHINES]


def begin(scene: Scene) -> Machine:
    """The world of a scene, after its prelude."""
    machine = Machine(scene)
    by_words = {move.words: move for move in edits(machine)}
    for words in scene.prelude:
        machine.world.run_until_idle(limit_s=30.0)
        by_words[words].act(machine)
    machine.world.parts.sent.clear()
    return machine
