"""Objects whose driver has no sidecar, in a whole world: the controller says whom they wait for."""

import base64

import pytest
from tests.model.processes import DRIVER
from tests.model.world import World, add_access, add_access_class, add_claim, add_class

from cosi_operator.api.core import LEASES, SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKETS,
)
from cosi_operator.api.view import Key
from cosi_operator.plan import names

SOON_S = 10.0
BUCKET = "bucket-bucketclaim-photos-1"


@pytest.fixture
def world() -> World:
    made = World()
    add_class(made)
    add_access_class(made)
    return made


def events(world: World, kind: str, reason: str) -> list[str]:
    return [t.message for t in world.parts.told if t.about.kind == kind and t.reason == reason]


def test_an_access_whose_driver_is_not_installed_says_so(world: World) -> None:
    add_access(world)
    world.run_until_idle(SOON_S, only="controller")
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "WaitingForSidecar")
    (message,) = events(world, "BucketAccess", "WaitingForSidecar")
    assert DRIVER in message
    add_claim(world)
    world.run_until_idle()
    assert world.ready(BUCKET_ACCESSES, "reader") == ("True", "Granted")


def test_the_wait_for_a_sidecar_names_the_last_renewal_of_its_lease(world: World) -> None:
    add_claim(world)
    add_access(world)
    world.run_until_idle()
    world.clock.advance(60)
    key = Key("cosi", names.lease_name(f"{DRIVER}/cosi"))
    body = {"metadata": {"name": key.name, "namespace": key.namespace}}
    renewed = "2026-01-01T00:00:42.000000Z"
    world.api.create(LEASES, {**body, "spec": {"renewTime": renewed}})
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(SOON_S, only="controller")
    for kind in ("BucketAccess", "BucketClaim", "Bucket"):
        (message,) = events(world, kind, "WaitingForSidecar")
        assert message.endswith(f" The Lease of that sidecar was last renewed at {renewed}.")
    later = world.api.get(LEASES, key)
    later["spec"]["renewTime"] = "2026-01-01T00:00:52.000000Z"  # no new report for each renewal
    world.restart("sidecar")
    version = world.api.version
    world.run_until_idle(60.0, only="controller")
    assert world.api.version == version


def test_a_deletion_without_a_sidecar_says_whom_it_waits_for_and_goes_on_when_it_comes(
    world: World,
) -> None:
    add_claim(world)
    add_access(world)
    world.run_until_idle()
    world.clock.advance(60)  # the sidecar was not at work just now
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle(SOON_S, only="controller")
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "WaitingForSidecar")
    assert world.ready(BUCKET_CLAIMS, "photos") == ("False", "WaitingForSidecar")
    assert world.found(BUCKET_CLAIMS, "photos")["status"]["bucketReady"]
    assert world.found(BUCKET_ACCESSES, "reader")["status"]["accessGranted"]  # its key still works
    for kind in ("BucketAccess", "BucketClaim", "Bucket"):
        (message,) = events(world, kind, "WaitingForSidecar")
        assert DRIVER in message
    world.run_until_idle()
    assert not world.api.list(BUCKET_CLAIMS)
    assert not world.api.list(BUCKETS)
    assert not world.backend.accounts
    assert world.check_settled() == []


def test_with_a_sidecar_nobody_hears_of_it(world: World) -> None:
    add_claim(world)
    add_access(world)
    world.run_until_idle()
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.user_deletes(BUCKET_CLAIMS, "photos")
    world.run_until_idle()
    assert not [told for told in world.parts.told if told.reason == "WaitingForSidecar"]


def test_a_copied_finalizer_holds_nobody(world: World) -> None:
    """Neither the copy nor the Secret that came with it, so that their namespace can be deleted."""
    world.user_creates(
        SECRETS,
        "keys",
        type="Opaque",
        data={"BucketInfo": base64.b64encode(b'{"metadata":{"name":"bc-earlier"}}').decode()},
    )
    world.user_edits(
        SECRETS, "keys", lambda body: body["metadata"].update(finalizers=[names.SECRET_FINALIZER])
    )
    world.user_creates(
        BUCKET_ACCESSES,
        "copy",
        spec={
            "bucketAccessClassName": "gone",
            "bucketClaimName": "photos",
            "credentialsSecretName": "keys",
            "protocol": "S3",
        },
    )
    world.user_edits(
        BUCKET_ACCESSES,
        "copy",
        lambda body: body["metadata"].update(finalizers=[names.ACCESS_FINALIZER]),
    )
    world.run_until_idle()
    world.user_deletes(BUCKET_ACCESSES, "copy")
    world.run_until_idle()
    assert not world.api.list(BUCKET_ACCESSES)
    assert "finalizers" not in world.found(SECRETS, "keys")["metadata"]
    assert events(world, "BucketAccess", "BackendUnverified")
    assert not world.backend.calls


def test_an_access_whose_class_is_gone_is_left_to_the_sidecar_of_its_bucket(world: World) -> None:
    add_claim(world)
    add_access(world)
    world.run_until_idle()
    world.clock.advance(60)
    world.user_deletes(BUCKET_ACCESS_CLASSES, "keys")
    world.user_deletes(BUCKET_ACCESSES, "reader")
    world.run_until_idle(SOON_S, only="controller")
    assert world.ready(BUCKET_ACCESSES, "reader") == ("False", "WaitingForSidecar")
    world.run_until_idle()
    assert not world.api.list(BUCKET_ACCESSES)
    assert not world.backend.accounts
