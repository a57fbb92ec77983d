"""The commands against an API server at the wire: rights, pages, conflicts, and exit codes."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from tests.support.apiserver import Reply, StubApiServer, serving
from tests.support.clock import FakeClock
from tests.support.sdk import sdk_client

import cosi_operator
from cosi_operator.api.core import LEASES, SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Key, Resource
from cosi_operator.cli.arguments import parse
from cosi_operator.cli.commands import run, watch
from cosi_operator.cli.printed import CommandError, Printed
from cosi_operator.kube.errors import Invalid
from cosi_operator.plan.names import RETRY_ANNOTATION, ROTATE_ANNOTATION
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.errors import NotInstalledError

CLAIM, ACCESS = Key("ns", "c"), Key("ns", "a")
OPERATOR = Path(cosi_operator.__file__).parents[1]


@pytest.fixture
async def server() -> AsyncIterator[StubApiServer]:
    async with serving() as server:
        yield server


@pytest.fixture
async def client(server: StubApiServer) -> AsyncIterator[Client]:
    async with sdk_client(server, FakeClock()) as client:
        yield client


async def cosi(client: Client, *words: str) -> Printed:
    return await run(parse(words, "cosi"), client, FakeClock())


def failed(reason: str = "DriverInvalidArgument") -> list[dict[str, Any]]:
    common = {
        "reason": reason,
        "message": "The region is unknown.",
        "lastTransitionTime": "2025-12-31T23:00:00Z",
        "observedGeneration": 1,
    }
    return [
        {"type": "Ready", "status": "False", **common},
        {"type": "Stalled", "status": "True", **common},
    ]


def put_all(server: StubApiServer, *, ready: bool) -> None:
    """A claim with its class, Bucket, access and, when ready, a Secret."""
    server.put(BUCKET_CLASSES, Key("", "fast"), driverName="d.example.com")
    server.put(
        BUCKET_ACCESS_CLASSES,
        Key("", "keys"),
        driverName="D.example.com",
        authenticationType="Key",
    )
    claim = server.put(
        BUCKET_CLAIMS,
        CLAIM,
        spec={"bucketClassName": "fast", "protocols": ["S3"]},
        status={"bucketReady": ready, "bucketName": "b"} | ({} if ready else told(failed())),
    )
    uid = claim["metadata"]["uid"]
    server.put(
        BUCKETS,
        Key("", "b"),
        spec={
            "driverName": "d.example.com",
            "bucketClaim": {"namespace": "ns", "name": "c", "uid": uid},
        },
        status={"bucketReady": ready, "bucketID": "id"} | ({} if ready else told(failed())),
    )
    server.put(
        BUCKET_ACCESSES,
        ACCESS,
        spec={
            "bucketAccessClassName": "keys",
            "bucketClaimName": "c",
            "credentialsSecretName": "s",
        },
        status={"accessGranted": True, "accountID": "x"} if ready else {},
    )
    if ready:
        server.put(SECRETS, Key("ns", "s"), data={"BucketInfo": "c2VjcmV0"})


def put_lease(server: StubApiServer) -> None:
    """That of the driver's sidecar, which works."""
    server.put(
        LEASES,
        Key("vendor", "d-example-com-cosi"),
        spec={
            "holderIdentity": "one",
            "acquireTime": "2025-12-31T23:00:00.000000Z",
            "renewTime": "2025-12-31T23:59:59.000000Z",
            "leaseDurationSeconds": 15,
        },
    )


def told(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"conditions": conditions}


async def test_why_is_content_when_the_whole_chain_is(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    for words in (("c",), ("bucketaccess/a",)):
        printed = await cosi(client, "why", *words, "-n", "ns")
        assert printed.code == 0
        assert ": ready\n" in printed.out
        assert "Secret ns/s" in printed.out
        assert "c2VjcmV0" not in printed.out


async def test_why_marks_the_bucket_and_says_so_in_json_too(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    printed = await cosi(client, "why", "c", "-n", "ns", "-o", "json")
    tree = json.loads(printed.out)
    assert (printed.code, tree["ready"]) == (1, False)
    assert [link["kind"] for link in tree["links"] if link["isCause"]] == ["Bucket"]
    assert tree["links"][2]["message"] == "The region is unknown."
    assert "lastCall" in tree["links"][2]


async def test_why_with_a_tenants_rights_names_what_it_could_not_see(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    for plural in ("buckets", "bucketclasses", "bucketaccessclasses", "secrets"):
        server.forbid("get", plural)
    printed = await cosi(client, "why", "c", "-n", "ns")
    assert printed.code == 1
    lines = {" ".join(line.split()) for line in printed.out.splitlines()}
    assert "BucketClass fast not visible you have no right to read it" in lines
    assert "BucketClaim ns/c failed DriverInvalidArgument <== this" in lines


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param(("why", "nope"), "BucketClaim ns/nope: there is no such", id="a claim"),
        pytest.param(("why", "bucketaccess/nope"), "BucketAccess ns/nope: there", id="an access"),
        pytest.param(("retry", "nope"), "BucketClaim ns/nope: there is no such", id="a retry"),
    ],
)
async def test_a_name_that_is_not_there_is_named(
    client: Client, words: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(CommandError, match=reason):
        await cosi(client, *words, "-n", "ns")


async def test_why_about_an_access_that_may_not_be_read(
    server: StubApiServer, client: Client
) -> None:
    server.forbid("get", "bucketaccesses")
    with pytest.raises(CommandError, match="you have no right to read it"):
        await cosi(client, "why", "bucketaccess/a")


async def test_status_reads_every_page_and_adds_only_buckets_without_a_claim(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    for number in range(600):
        server.put(BUCKET_CLAIMS, Key("many", f"c-{number:03}"), status={"bucketReady": True})
    server.put(BUCKETS, Key("", "alone"), spec={"driverName": "d.example.com"})
    printed = await cosi(client, "status", "-A", "-o", "json")
    tree = json.loads(printed.out)
    assert (printed.code, tree["total"], tree["notSeen"]) == (1, 603, {})
    assert [(row["kind"], row["name"]) for row in tree["notReady"]] == [
        ("Bucket", "alone"),
        ("BucketAccess", "a"),
        ("BucketClaim", "c"),
    ]


async def test_status_is_about_the_contexts_namespace_unless_told(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    assert "in namespace default" in (await cosi(client, "status")).out
    printed = await cosi(client, "status", "-n", "ns")
    assert (printed.code, printed.out) == (0, "All 2 objects in namespace ns are ready.\n")


async def test_status_goes_on_without_what_it_may_not_list(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    server.forbid("list", "bucketaccesses")
    printed = await cosi(client, "status", "-n", "ns")
    assert "BucketClaim" in printed.out
    assert printed.note == "not seen: bucketaccesses in ns (you have no right to list them)\n"


async def test_status_that_may_list_nothing_asks_for_a_namespace(
    server: StubApiServer, client: Client
) -> None:
    server.forbid("list", "bucketclaims")
    server.forbid("list", "bucketaccesses")
    with pytest.raises(CommandError, match="-n NAMESPACE"):
        await cosi(client, "status", "-A")


async def test_an_unreadable_object_does_not_hide_the_others(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    server.put(BUCKET_CLAIMS, Key("ns", "broken"), status={"bucketReady": "yes"})
    printed = await cosi(client, "status", "-n", "ns")
    assert printed.out == "All 2 objects in namespace ns are ready.\n"
    assert "one of the bucketclaims (not readable: " in printed.note
    assert printed.code == 1  # 0 would say that the broken one is ready too


@pytest.mark.parametrize("output", ["table", "json", "name"])
async def test_why_is_not_ready_while_a_part_is_unreadable(
    server: StubApiServer, client: Client, output: str
) -> None:
    put_all(server, ready=True)
    assert (await cosi(client, "why", "c", "-n", "ns", "-o", output)).code == 0
    server.put(BUCKET_ACCESSES, Key("ns", "broken"), status={"accessGranted": "yes"})
    assert (await cosi(client, "why", "c", "-n", "ns", "-o", output)).code == 1


async def test_a_cluster_without_cosi_is_told_so(server: StubApiServer, client: Client) -> None:
    server.fail_next("list", Reply(404, "NotFound", "the server could not find it"))
    with pytest.raises(NotInstalledError, match="install COSI's CRDs"):
        await cosi(client, "status")


@pytest.mark.attack("one object with names that are too long hides all others from every user")
async def test_names_that_no_object_can_have_are_told_beside_the_others(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    long = "a" * 70_000
    names = ("bucketAccessClassName", "bucketClaimName", "credentialsSecretName")
    granted = {"accessGranted": True, "accountID": "x"}
    server.put(BUCKET_ACCESSES, Key("ns", "odd"), spec=dict.fromkeys(names, long), status=granted)
    for name, spec in (
        ("odd", {"bucketClassName": long}),
        ("brought", {"bucketClassName": "fast", "existingBucketName": long}),
    ):
        server.put(BUCKET_CLAIMS, Key("ns", name), spec={**spec, "protocols": ["S3"]})
    shown = {
        ("status", "-n", "ns"): "SecretMissing",
        ("status", "-n", "ns", "-o", "wide"): "Create another BucketAccess.",
        ("why", "odd", "-n", "ns"): "another name in spec.bucketClassName",
        ("why", "brought", "-n", "ns"): "another name in spec.existingBucketName",
        ("why", "ba/odd", "-n", "ns"): "another name in spec.bucketClaimName",
        ("rollback-check",): "odd",
    }
    for words, part in shown.items():
        printed = await cosi(client, *words)
        assert printed.code == 1
        assert part in " ".join(printed.out.split())
        assert len(printed.out) < 6000
    assert (await cosi(client, "retry", "ba/odd", "-n", "ns")).code == 0
    assert (await cosi(client, "why", "c", "-n", "ns")).code == 0
    for words in (("why", long), ("retry", long), ("rotate", long)):
        with pytest.raises(CommandError, match="no object can have this name") as raised:
            await cosi(client, *words, "-n", "ns")
        assert len(str(raised.value)) < 400


async def test_drivers_counts_over_classes_and_buckets(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    assert "d.example.com" in (await cosi(client, "drivers")).out
    tree = json.loads((await cosi(client, "drivers", "-o", "json")).out)
    (row,) = tree["drivers"]
    assert (row["buckets"], row["failed"], row["classes"], row["accessClasses"]) == (
        1,
        1,
        ["fast"],
        ["keys"],
    )


@pytest.mark.parametrize("output", ["table", "json", "name"])
@pytest.mark.parametrize(
    "broken",
    [
        (BUCKET_CLASSES, Key("", "broken"), {"driverName": 7}),
        (BUCKETS, Key("", "broken"), {"spec": 7}),
    ],
    ids=["a class -> 1", "a Bucket -> 1"],
)
async def test_drivers_says_what_it_could_not_read_and_ends_with_1(
    server: StubApiServer, client: Client, output: str, broken: tuple[Resource, Key, dict[str, Any]]
) -> None:
    put_all(server, ready=True)
    put_lease(server)
    assert (await cosi(client, "drivers", "-o", output)).code == 0
    resource, key, fields = broken
    server.put(resource, key, **fields)
    printed = await cosi(client, "drivers", "-o", output)
    assert printed.code == 1  # 0 would say that every driver is there
    assert f"one of the {resource.plural}" in (printed.out if output == "json" else printed.note)


async def test_why_says_that_the_accesses_of_a_claim_could_not_be_read(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    server.put(BUCKET_ACCESSES, Key("ns", "broken"), status={"accessGranted": "yes"})
    printed = await cosi(client, "why", "c", "-n", "ns")
    assert printed.code == 1, "nobody knows whether it is ready"
    assert "BucketClaim ns/c: everything that you may see is ready\n" in printed.out
    assert "BucketAccess  " in printed.out
    assert "not visible  not readable: Expected `bool | null`, got `str`" in printed.out
    server.forbid("list", "bucketaccesses")
    printed = await cosi(client, "why", "c", "-n", "ns")
    assert printed.code == 0
    assert "BucketClaim ns/c: everything that you may see is ready\n" in printed.out
    assert "not visible  you have no right to list them" in printed.out
    tree = json.loads((await cosi(client, "why", "c", "-n", "ns", "-o", "json")).out)
    last = tree["links"][-1]
    assert (last["kind"], last["name"], last["state"]) == ("BucketAccess", "", "not visible")


async def test_drivers_with_no_right_at_all_says_why(server: StubApiServer, client: Client) -> None:
    for resource in (BUCKET_CLASSES, BUCKET_ACCESS_CLASSES, BUCKETS):
        server.forbid("list", resource.plural)
    with pytest.raises(CommandError, match="neither classes nor Buckets"):
        await cosi(client, "drivers")


async def test_rollback_check_looks_for_the_secrets_and_never_shows_them(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    rows = json.loads((await cosi(client, "rollback-check", "-o", "json")).out)["mishandled"]
    assert [row["kind"] for row in rows] == ["BucketAccess", "BucketClaim"]  # no finalizers
    assert "without bucketaccess-protection" in rows[0]["why"]
    server.drop(SECRETS, Key("ns", "s"))
    printed = await cosi(client, "rollback-check")
    assert printed.code == 1
    assert "its Secret s is gone" in printed.out


@pytest.mark.parametrize("plural", ["buckets", "bucketclaims", "bucketaccesses"])
async def test_rollback_check_says_nothing_about_half_a_cluster(
    server: StubApiServer, client: Client, plural: str
) -> None:
    server.forbid("list", plural)
    with pytest.raises(CommandError, match="ask an administrator"):
        await cosi(client, "rollback-check")


async def test_rollback_check_gives_no_permission_when_something_was_unreadable(
    server: StubApiServer, client: Client
) -> None:
    assert (await cosi(client, "rollback-check")).code == 0
    server.put(BUCKET_CLAIMS, Key("ns", "broken"), status={"bucketReady": "yes"})
    printed = await cosi(client, "rollback-check")
    assert printed.code == 1
    assert "do not roll back yet" in printed.out
    assert "not readable" in printed.note


@pytest.mark.parametrize(
    ("name", "resource", "key"),
    [
        pytest.param("c", BUCKET_CLAIMS, CLAIM, id="a claim"),
        pytest.param("bucketaccess/a", BUCKET_ACCESSES, ACCESS, id="an access"),
        pytest.param("bucket/b", BUCKETS, Key("", "b"), id="a Bucket"),
    ],
)
async def test_retry_writes_a_fresh_value_and_keeps_all_else(
    server: StubApiServer, client: Client, name: str, resource: Resource, key: Key
) -> None:
    put_all(server, ready=False)
    server.put(resource, key, metadata={"annotations": {"mine": "kept"}}, unknown={"kept": True})
    before = server.objects[resource.path(key.namespace, key.name)]
    printed = await cosi(client, "retry", name, "-n", "ns")
    after = server.objects[resource.path(key.namespace, key.name)]
    assert after["metadata"]["annotations"] == {
        "mine": "kept",
        RETRY_ANNOTATION: "2026-01-01T00:00:00.000000Z",
    }
    assert {**after, "metadata": 0} == {**before, "metadata": 0}
    assert "will be tried again" in printed.out


async def test_retry_reads_again_after_a_conflict(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=False)
    server.fail_next("update", Reply(409, "Conflict"), Reply(409, "Conflict"))
    assert (await cosi(client, "retry", "c", "-n", "ns")).code == 0
    assert (server.count("get"), server.count("update")) == (3, 3)


async def test_retry_gives_up_on_an_object_that_never_rests(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    server.fail_next("update", *[Reply(409, "Conflict")] * 5)
    with pytest.raises(CommandError, match="it keeps changing"):
        await cosi(client, "retry", "c", "-n", "ns")


async def test_a_secret_that_was_removed_is_reported_and_a_retry_makes_new_keys(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    server.drop(SECRETS, Key("ns", "s"))
    printed = await cosi(client, "why", "bucketaccess/a", "-n", "ns")
    assert printed.code == 1
    assert "cosi retry bucketaccess/a -n ns" in printed.out
    printed = await cosi(client, "status", "-n", "ns")
    assert printed.code == 1
    assert "SecretMissing" in printed.out
    everywhere = await cosi(client, "status", "-A")
    assert everywhere.code == 1
    assert "SecretMissing" in everywhere.out
    assert "will be tried again" in (await cosi(client, "retry", "bucketaccess/a", "-n", "ns")).out
    after = server.objects[BUCKET_ACCESSES.path("ns", "a")]
    assert RETRY_ANNOTATION in after["metadata"]["annotations"]


async def test_status_reads_no_secret_that_it_may_not_and_not_thousands(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    server.forbid("get", "secrets")
    printed = await cosi(client, "status", "-n", "ns")
    assert printed.code == 0
    assert printed.note == "not seen: Secret ns/s (you have no right to read it)\n"
    many = [Key("more", f"a-{number}") for number in range(11)]
    for key in many:
        server.put(
            BUCKET_ACCESSES,
            key,
            spec={"credentialsSecretName": key.name},
            status={"accessGranted": True, "accountID": "x"},
        )
    printed = await cosi(client, "status", "-A")
    assert printed.note == "not seen: secrets (you have no right to read 12 of them)\n"
    for number in range(201):
        server.put(
            BUCKET_ACCESSES,
            Key("many", f"a-{number}"),
            spec={"credentialsSecretName": "s"},
            status={"accessGranted": True, "accountID": "x"},
        )
    before = server.count("get")
    for words in (("-n", "many"), ("-A",)):
        printed = await cosi(client, "status", *words)
        assert printed.code == 0
        assert "not seen: secrets (more than 200 accesses name one; ask for one" in printed.note
    assert server.count("get") == before


async def test_rotate_writes_a_fresh_value(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=True)
    for words in ("a", "bucketaccess/a"):
        assert "asks for new keys" in (await cosi(client, "rotate", words, "-n", "ns")).out
    after = server.objects[BUCKET_ACCESSES.path("ns", "a")]
    assert after["metadata"]["annotations"][ROTATE_ANNOTATION] == "2026-01-01T00:00:00.000000Z"


async def test_rotate_of_an_access_without_keys_says_what_to_look_at(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    with pytest.raises(CommandError, match=r"no keys yet.*cosi why bucketaccess/a -n ns"):
        await cosi(client, "rotate", "a", "-n", "ns")
    server.put(BUCKET_ACCESSES, ACCESS, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    with pytest.raises(CommandError, match="being deleted"):
        await cosi(client, "rotate", "a", "-n", "ns")
    assert server.count("update") == 0


async def test_drivers_says_whether_the_sidecar_works(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    put_lease(server)
    printed = await cosi(client, "drivers")
    assert printed.code == 0
    row = printed.out.splitlines()[1].split()
    assert row[:3] == ["d.example.com", "up", "1h"]
    server.drop(LEASES, Key("vendor", "d-example-com-cosi"))
    for words in ((), ("-o", "json"), ("-o", "name")):
        assert (await cosi(client, "drivers", *words)).code == 1
    assert "absent" in (await cosi(client, "drivers")).out
    server.put(LEASES, Key("vendor", "d-example-com-cosi"), spec={})
    printed = await cosi(client, "drivers")
    assert printed.code == 1
    assert "down" in printed.out
    server.forbid("list", "leases")
    printed = await cosi(client, "drivers")
    assert printed.code == 0
    assert "not visible" in printed.out
    assert "leases" in printed.note


async def test_retry_leaves_a_ready_object_alone(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=True)
    assert "is ready" in (await cosi(client, "retry", "c", "-n", "ns")).out
    assert server.count("update") == 0


async def test_a_refusal_that_is_no_403_is_not_taken_for_an_empty_cluster(
    server: StubApiServer, client: Client
) -> None:
    server.fail_next("list", Reply(400, "BadRequest", "no"))
    with pytest.raises(Invalid):
        await cosi(client, "drivers")


async def test_retry_of_an_unreadable_object_says_what_is_wrong_with_it(
    server: StubApiServer, client: Client
) -> None:
    server.put(BUCKET_CLAIMS, CLAIM, status={"bucketReady": "yes"})
    with pytest.raises(CommandError, match="not readable"):
        await cosi(client, "retry", "c", "-n", "ns")


async def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=True)
    server.put(BUCKET_ACCESSES, Key("ns", "photos-keys"))
    for words, told in (
        (("why", "a"), "did you mean bucketaccess/a\\?"),
        (("retry", "photo-keys"), "did you mean bucketaccess/photos-keys\\?"),
        (("rotate", "c"), "did you mean bucketclaim/c\\?"),
    ):
        with pytest.raises(CommandError, match=told):
            await cosi(client, *words, "-n", "ns")


async def test_a_tenant_who_may_list_nothing_still_gets_a_sentence(
    server: StubApiServer, client: Client
) -> None:
    for plural in ("bucketclaims", "bucketaccesses"):
        server.forbid("list", plural)
    with pytest.raises(CommandError, match="there is no such object; to list"):
        await cosi(client, "why", "a", "-n", "ns")


@pytest.mark.parametrize("words", [("retry", "c"), ("retry", "bucket/b"), ("why", "c")])
async def test_a_cluster_without_the_crds_is_told_so_by_every_command(
    server: StubApiServer, client: Client, words: tuple[str, ...]
) -> None:
    gone = Reply(404, "NotFound", "the server could not find the requested resource")
    server.fail_next("get", gone)
    server.fail_next("list", gone)
    with pytest.raises(NotInstalledError, match="install COSI's CRDs"):
        await cosi(client, *words, "-n", "ns")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        pytest.param(
            ("status", "-n", "ns"),
            ["bucketaccess.objectstorage.k8s.io/a", "bucketclaim.objectstorage.k8s.io/c"],
            id="status",
        ),
        pytest.param(
            ("why", "c", "-n", "ns"), ["bucket.objectstorage.k8s.io/b"], id="why -> the cause"
        ),
        pytest.param(("drivers",), ["d.example.com"], id="drivers"),
        pytest.param(
            ("rollback-check",),
            [
                "bucket.objectstorage.k8s.io/b",
                "bucketaccess.objectstorage.k8s.io/a",
                "bucketclaim.objectstorage.k8s.io/c",
            ],
            id="rollback-check",
        ),
    ],
)
async def test_names_alone_are_what_kubectl_and_cosi_take(
    server: StubApiServer, client: Client, words: tuple[str, ...], names: list[str]
) -> None:
    put_all(server, ready=False)
    assert (await cosi(client, *words, "-o", "name")).out.splitlines() == names


@pytest.mark.parametrize(
    "words", [("status", "-n", "ns"), ("why", "c", "-n", "ns"), ("drivers",), ("rollback-check",)]
)
async def test_yaml_says_what_json_says(
    server: StubApiServer, client: Client, words: tuple[str, ...]
) -> None:
    put_all(server, ready=False)
    as_json = json.loads((await cosi(client, *words, "-o", "json")).out)
    assert yaml.safe_load((await cosi(client, *words, "-o", "yaml")).out) == as_json


async def test_wide_shows_the_whole_message(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=False)
    message = "a word " * 30 + "end."
    told = [{**each, "message": message} for each in failed()]
    server.put(BUCKET_CLAIMS, CLAIM, status={"conditions": told})
    assert "end." not in (await cosi(client, "status", "-n", "ns")).out
    assert message in (await cosi(client, "status", "-n", "ns", "-o", "wide")).out


async def test_why_says_who_can_do_the_next_step(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=False)
    printed = await cosi(client, "why", "c", "-n", "ns")
    assert "      who        your cluster administrator\n" in printed.out
    tree = json.loads((await cosi(client, "why", "c", "-n", "ns", "-o", "json")).out)
    assert [link["who"] for link in tree["links"] if link["isCause"]] == ["cluster administrator"]


async def test_a_watch_prints_again_only_when_something_changed(
    server: StubApiServer, client: Client
) -> None:
    put_all(server, ready=False)
    clock = FakeClock()
    seen: list[Printed] = []
    command = parse(("why", "c", "-n", "ns", "--watch"), "cosi")

    async def watched() -> None:
        async for printed in watch(command, client, clock):
            seen.append(printed)  # noqa: PERF401 - seen while the watch still runs

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched)
        for _ in range(3):  # nothing changes
            await clock.wait_for_sleepers()
            clock.advance(2)
        assert [printed.code for printed in seen] == [1]
        await clock.wait_for_sleepers()
        put_all(server, ready=True)
        clock.advance(2)
    assert [printed.code for printed in seen] == [1, 0]
    assert seen[1].out.startswith("\nBucketClaim ns/c: ready\n")


async def test_an_age_alone_is_no_change(server: StubApiServer, client: Client) -> None:
    put_all(server, ready=False)
    command = parse(("status", "-n", "ns"), "cosi")
    first = await run(command, client, FakeClock())
    later = FakeClock()
    later.advance(7200)
    second = await run(command, client, later)
    assert first.out != second.out
    assert first.facts == second.facts


MAIN = "import sys; from cosi_operator.cli import main; sys.exit(main())"


def process(*words: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env={"PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig), "HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "stdout", "stderr"),
    [
        pytest.param(("--help",), 0, "status", "", id="help is no error"),
        pytest.param(("why", "--help"), 0, "bucketaccess", "", id="help of a command"),
        pytest.param((), 2, "", "required: COMMAND", id="no command"),
        pytest.param(("why", "pod/x"), 2, "", "bucketclaim, bucketaccess", id="a wrong kind"),
        pytest.param(
            ("policy", "explain", "--call", "x", "--code", "OK"),
            2,
            "",
            "is not a call",
            id="a call",
        ),
        pytest.param(("policy", "show"), 0, "INTERNAL", "", id="a command without a cluster"),
        pytest.param(
            ("policy", "show", "--profile", "x"), 2, "", "error: unknown profile", id="profile"
        ),
        pytest.param(("status",), 2, "", "error: ", id="no kubeconfig"),
    ],
)
def test_the_process_ends_with_the_right_code_and_no_traceback(
    tmp_path: Path, words: tuple[str, ...], code: int, stdout: str, stderr: str
) -> None:
    done = process(*words, kubeconfig=tmp_path / "none")
    assert done.returncode == code, done.stderr
    assert stdout in done.stdout
    assert stderr in done.stderr
    assert "Traceback" not in done.stderr
