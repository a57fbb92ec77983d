"""The client against a server at the wire: verbs, errors, what is sent again and what is not."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.apiserver import Drop, Fault, Hang, Reply, StubApiServer, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key, Resource
from cosi_operator.kube.auth import TokenFile
from cosi_operator.kube.client import PAGE_LIMIT_BYTES, KubeClient
from cosi_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    ApiSilent,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from cosi_operator.kube.request import Request
from cosi_operator.kube.transport import pause_before_retry

BUCKETS = Resource("objectstorage.k8s.io", "v1alpha1", "buckets", "Bucket", namespaced=False)
CLAIMS = Resource(
    "objectstorage.k8s.io", "v1alpha1", "bucketclaims", "BucketClaim", namespaced=True
)
B1 = Key("", "b-1")


@pytest.fixture
async def server() -> AsyncIterator[StubApiServer]:
    async with serving() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def client(server: StubApiServer, clock: FakeClock) -> AsyncIterator[KubeClient]:
    async with client_of(server, clock) as client:
        yield client


def bucket(name: str = "b-1", **metadata: str) -> dict[str, Any]:
    return {
        "apiVersion": BUCKETS.api_version,
        "kind": "Bucket",
        "metadata": {"name": name, **metadata},
    }


async def test_an_object_is_created_read_updated_and_deleted(
    client: KubeClient, server: StubApiServer
) -> None:
    created = json.loads(await client.create(BUCKETS, bucket()))
    assert json.loads(await client.get(BUCKETS, B1)) == created
    updated = json.loads(await client.update(BUCKETS, {**created, "spec": {"driverName": "d"}}))
    assert updated["spec"] == {"driverName": "d"}
    await client.delete(BUCKETS, B1, uid=updated["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(BUCKETS, B1)
    assert [seen.verb for seen in server.seen] == ["create", "get", "update", "delete", "get"]
    assert server.seen[0].headers["Authorization"] == "Bearer token-1"
    assert server.seen[0].headers["User-Agent"] == "test/1"


async def test_namespace_and_subresource_are_part_of_the_path(
    client: KubeClient, server: StubApiServer
) -> None:
    claim = server.put(CLAIMS, Key("ns", "c"))
    await client.update(CLAIMS, claim, subresource="status")
    assert server.seen[-1].path == (
        "/apis/objectstorage.k8s.io/v1alpha1/namespaces/ns/bucketclaims/c/status"
    )


async def test_a_dry_run_stores_nothing(client: KubeClient, server: StubApiServer) -> None:
    await client.create(BUCKETS, bucket(), dry_run=True)
    assert server.seen[-1].query == {"dryRun": "All"}
    assert not server.objects


async def test_a_delete_is_bound_to_the_uid(client: KubeClient, server: StubApiServer) -> None:
    server.put(BUCKETS, B1)
    with pytest.raises(Conflict):
        await client.delete(BUCKETS, B1, uid="of-its-predecessor")
    body = server.seen[-1].body
    assert body is not None
    assert body["preconditions"] == {"uid": "of-its-predecessor"}
    assert body["propagationPolicy"] == "Background"


async def test_a_delete_can_be_bound_to_the_version_too(
    client: KubeClient, server: StubApiServer
) -> None:
    stored = json.loads(await client.create(BUCKETS, bucket()))
    meta = stored["metadata"]
    await client.delete(BUCKETS, B1, uid=meta["uid"], resource_version=meta["resourceVersion"])
    body = server.seen[-1].body
    assert body is not None
    expected = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    assert body["preconditions"] == expected


async def test_blind_writes_are_refused_before_they_are_sent(
    client: KubeClient, server: StubApiServer
) -> None:
    with pytest.raises(ValueError, match="without a uid"):
        await client.delete(BUCKETS, B1, uid="")
    with pytest.raises(ValueError, match="without a resourceVersion"):
        await client.update(BUCKETS, bucket())
    assert server.seen == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="an empty name would be a list"),
        pytest.param("../secrets/s", id="a path out of the collection"),
        pytest.param("..", id="a parent"),
        pytest.param("a/status", id="a subresource"),
        pytest.param("a?dryRun=All", id="a query"),
        pytest.param("a%2fb", id="an escape"),
        pytest.param("a\n", id="a line end"),
    ],
)
async def test_a_name_that_no_object_can_have_is_not_found_without_a_request(
    client: KubeClient, server: StubApiServer, name: str
) -> None:
    with pytest.raises(NotFound):
        await client.get(BUCKETS, Key("", name))
    with pytest.raises(NotFound):
        await client.get(CLAIMS, Key(name or "..", "c"))
    assert server.seen == []


async def test_a_list_returns_pages_of_raw_items(client: KubeClient, server: StubApiServer) -> None:
    for number in range(5):
        server.put(BUCKETS, Key("", f"b-{number}"))
    first = await client.list(BUCKETS, limit=3)
    server.put(BUCKETS, Key("", "b-9"))  # after the list was made
    rest = await client.list(BUCKETS, limit=3, continue_token=first.continue_token)
    names = [json.loads(item)["metadata"]["name"] for item in first.items + rest.items]
    assert names == ["b-0", "b-1", "b-2", "b-3", "b-4"]
    assert first.resource_version == rest.resource_version == "105"
    assert rest.continue_token == ""


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        pytest.param(Reply(400, "BadRequest"), Invalid, id="400 is Invalid"),
        pytest.param(Reply(403, "Forbidden"), Forbidden, id="403 is Forbidden"),
        pytest.param(Reply(404, "NotFound"), NotFound, id="404 is NotFound"),
        pytest.param(Reply(405, "MethodNotAllowed"), ApiError, id="405 is only an ApiError"),
        pytest.param(Reply(409, "AlreadyExists"), AlreadyExists, id="409 by reason AlreadyExists"),
        pytest.param(Reply(409, "Conflict"), Conflict, id="409 by reason Conflict"),
        pytest.param(Reply(410, "Expired"), Expired, id="410 is Expired"),
        pytest.param(Reply(422, "Invalid"), Invalid, id="422 is Invalid"),
        pytest.param(Reply(500, "InternalError"), ServerError, id="500 is not sent again"),
        pytest.param(Reply(302, "Found", headers={"Location": "/"}), ApiError, id="no redirects"),
        pytest.param(Reply(502, body=b"<html>"), ServerError, id="a page of a proxy"),
    ],
)
async def test_a_refusal_has_a_type_and_is_not_repeated(
    client: KubeClient, server: StubApiServer, reply: Reply, kind: type[ApiError]
) -> None:
    server.fail_next("create", reply)
    with pytest.raises(ApiError) as caught:
        await client.create(BUCKETS, bucket())
    assert type(caught.value) is kind
    assert caught.value.status == reply.status
    assert "html" not in str(caught.value)
    assert server.count("create") == 1


async def test_the_message_of_a_refused_secret_is_left_out(
    client: KubeClient, server: StubApiServer
) -> None:
    refusal = Reply(422, "Invalid", 'Invalid value: "hunter2"')
    server.fail_next("create", refusal, refusal)
    secret = {"metadata": {"name": "s", "namespace": "ns"}, "stringData": {"k": "hunter2"}}
    with pytest.raises(Invalid) as caught:
        await client.create(SECRETS, secret, namespace="ns")
    assert str(caught.value) == "422 Invalid: create secrets ns"
    with pytest.raises(Invalid, match="hunter2"):  # other kinds keep it: it helps
        await client.create(BUCKETS, bucket())
    assert "hunter2" not in repr(Request("create", SECRETS, B1, body=b"hunter2"))


def stored(server: StubApiServer) -> dict[str, Any]:
    return server.put(BUCKETS, B1)


async def run_verb(client: KubeClient, verb: str, body: dict[str, Any]) -> None:
    match verb:
        case "get":
            await client.get(BUCKETS, B1)
        case "list":
            await client.list(BUCKETS)
        case "update":
            await client.update(BUCKETS, body)
        case "delete":
            await client.delete(BUCKETS, B1, uid=body["metadata"]["uid"])
        case _:
            await client.create(BUCKETS, bucket("b-2"))


SAFE = ("get", "list", "update", "delete")


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        pytest.param(verb, fault, id=f"{verb} after {what}")
        for verbs, fault, what in [
            (SAFE, Drop(), "a lost connection"),
            ((*SAFE, "create"), Reply(429, headers={"Retry-After": "1"}), "a 429"),
            ((*SAFE, "create"), Reply(503, headers={"Retry-After": "1"}), "a 503 that says when"),
            (SAFE, Reply(500, headers={"Retry-After": "1"}), "a 500 that says when"),
            (SAFE, Reply(502), "a 502"),
            (SAFE, Reply(504), "a 504"),
        ]
        for verb in verbs
    ],
)
async def test_what_can_be_repeated_is_repeated(
    client: KubeClient, server: StubApiServer, clock: FakeClock, verb: str, fault: Fault
) -> None:
    body = stored(server)
    server.fail_next(verb, fault, fault)
    async with clock.flying():
        await run_verb(client, verb, body)
    assert server.count(verb) == 3


async def test_the_retry_is_not_sent_before_the_retry_after_time(
    client: KubeClient, server: StubApiServer, clock: FakeClock
) -> None:
    stored(server)
    server.fail_next("get", Reply(429, headers={"Retry-After": "7"}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, BUCKETS, B1)
        await clock.wait_for_sleepers()
        (pause_s,) = clock.sleeping_for()
        assert 7 < pause_s < 8
        clock.advance(pause_s)


async def test_a_retry_after_beyond_the_deadline_is_left_to_the_caller(
    client: KubeClient, server: StubApiServer
) -> None:
    server.fail_next("get", Reply(429, headers={"Retry-After": "3600"}))
    with pytest.raises(TooManyRequests) as caught:
        await client.get(BUCKETS, B1)
    assert caught.value.retry_after_s == 60
    assert "asked for a wait of 3600 s; the operator waits at most 60 s" in str(caught.value)
    assert server.count("get") == 1


@pytest.mark.parametrize(
    ("asked", "waits_s"),
    [
        pytest.param("60", 60, id="60 s -> 60 s"),
        pytest.param("61", 60, id="one more -> 60 s"),
        pytest.param("9" * 400, 60, id="more than a float holds -> 60 s"),
        pytest.param(
            "Wed, 21 Oct 2099 07:28:00 GMT", None, id="a date -> the client's own backoff"
        ),
        pytest.param("-1", None, id="a negative number -> the client's own backoff"),
        pytest.param("1e9", None, id="not digits -> the client's own backoff"),
    ],
)
async def test_a_server_can_not_ask_for_more_than_a_minute(
    server: StubApiServer, clock: FakeClock, asked: str, waits_s: float | None
) -> None:
    server.fail_next("create", Reply(500, headers={"Retry-After": asked}))
    async with client_of(server, clock) as client:
        with pytest.raises(ServerError) as caught:
            await client.create(BUCKETS, bucket())
    assert caught.value.retry_after_s == waits_s


async def test_a_create_whose_reply_was_lost_is_not_repeated(
    client: KubeClient, server: StubApiServer
) -> None:
    server.fail_next("create", Drop(applied=True))
    with pytest.raises(ApiSilent):
        await client.create(BUCKETS, bucket())
    assert server.count("create") == 1
    assert len(server.objects) == 1  # which is why


async def test_an_update_whose_reply_was_lost_ends_in_a_conflict(
    client: KubeClient, server: StubApiServer, clock: FakeClock
) -> None:
    body = stored(server)
    server.fail_next("update", Drop(applied=True))
    async with clock.flying():
        with pytest.raises(Conflict):
            await client.update(BUCKETS, body)
    assert server.count("update") == 2


async def test_no_answer_within_the_deadline_is_silence(
    server: StubApiServer, clock: FakeClock
) -> None:
    server.fail_next("create", Hang())
    async with client_of(server, clock, timeout_s=0.05) as client:
        with pytest.raises(ApiSilent, match="TimeoutError"):
            await client.create(BUCKETS, bucket())


async def test_no_server_is_silence(clock: FakeClock) -> None:
    async with serving() as server:
        pass
    async with client_of(server, clock, timeout_s=0.1) as client:
        with pytest.raises(ApiSilent):
            await client.create(BUCKETS, bucket())


@pytest.mark.parametrize(
    ("verb", "failure", "attempt", "pause_s"),
    [
        pytest.param("get", ApiSilent(), 1, 0.2, id="starts at a fifth of a second"),
        pytest.param("get", ApiSilent(), 4, 1.6, id="doubles"),
        pytest.param("get", ApiSilent(), 5, None, id="ends after five attempts"),
        pytest.param("create", ApiSilent(), 1, None, id="a create may have happened"),
        pytest.param("create", ServerError(503, "", ""), 1, None, id="a 503 of a proxy, maybe"),
        pytest.param("create", ServerError(504, "", ""), 1, None, id="a 504 of a create"),
        pytest.param(
            "create", ServerError(503, "", "", retry_after_s=2), 1, 2.2, id="the server's own 503"
        ),
        pytest.param("get", ServerError(500, "", ""), 1, None, id="a 500 is a verdict"),
        pytest.param("get", Forbidden(403, "", ""), 1, None, id="a 403 is a verdict"),
    ],
)
def test_pauses(
    verb: str, failure: ApiError | ApiSilent, attempt: int, pause_s: float | None
) -> None:
    assert pause_before_retry(Request(verb, BUCKETS, B1), failure, attempt, 1.0) == pause_s


async def test_a_403_leaves_all_other_requests_alone(
    client: KubeClient, server: StubApiServer
) -> None:
    stored(server)
    async with client.watch(BUCKETS, resource_version=str(server.version), timeout_s=300) as lines:
        server.forbid("get", "bucketclaims")
        with pytest.raises(Forbidden):
            await client.get(CLAIMS, Key("ns", "c"))
        stored(server)
        assert b"MODIFIED" in await anext(lines)
    assert server.count("watch") == 1


async def test_a_rotated_token_is_used_within_a_minute(
    server: StubApiServer, clock: FakeClock, tmp_path: Path
) -> None:
    stored(server)
    file = tmp_path / "token"
    file.write_text("old\n")
    async with client_of(server, clock, credentials=TokenFile(file, clock)) as client:
        await client.get(BUCKETS, B1)
        file.write_text("new\n")
        await client.get(BUCKETS, B1)
        clock.advance(60)
        await client.get(BUCKETS, B1)
        file.unlink()
        clock.advance(60)
        await client.get(BUCKETS, B1)  # better the one from before than none
    assert [seen.headers["Authorization"] for seen in server.seen] == [
        "Bearer old",
        "Bearer old",
        "Bearer new",
        "Bearer new",
    ]


async def test_a_401_renews_the_token_once(
    server: StubApiServer, clock: FakeClock, tmp_path: Path
) -> None:
    stored(server)
    file = tmp_path / "token"
    file.write_text("old")
    server.allowed_tokens = {"Bearer new"}
    async with client_of(server, clock, credentials=TokenFile(file, clock)) as client:
        with pytest.raises(Unauthorized):
            await client.get(BUCKETS, B1)
        assert server.count("get") == 2
        file.write_text("new")
        await client.get(BUCKETS, B1)
        assert server.count("get") == 4
        await client.create(BUCKETS, bucket("b-2"))
        assert server.count("create") == 1
        server.allowed_tokens = {"Bearer newer"}
        file.write_text("newer")
        async with client.watch(BUCKETS, resource_version="100", timeout_s=300):
            pass
        assert server.count("watch") == 2


async def test_a_fixed_token_is_not_tried_twice(client: KubeClient, server: StubApiServer) -> None:
    server.allowed_tokens = set()
    with pytest.raises(Unauthorized):
        await client.get(BUCKETS, B1)
    assert server.count("get") == 1


async def test_a_missing_token_is_unauthorized_and_nothing_is_sent(
    server: StubApiServer, clock: FakeClock, tmp_path: Path
) -> None:
    async with client_of(server, clock, credentials=TokenFile(tmp_path / "token", clock)) as client:
        with pytest.raises(Unauthorized, match=r"token file .* No such file"):
            await client.get(BUCKETS, B1)
    assert server.seen == []


async def test_each_attempt_is_counted(server: StubApiServer, clock: FakeClock) -> None:
    counted: list[tuple[str, str, int]] = []

    def count(verb: str, plural: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        counted.append((verb, plural, status))

    server.fail_next("create", Drop())
    async with client_of(server, clock, on_request=count) as client:
        with pytest.raises(ApiSilent):
            await client.create(BUCKETS, bucket())
        await client.create(BUCKETS, bucket())
        async with client.watch(BUCKETS, resource_version="100", timeout_s=300):
            pass
    assert counted == [
        ("create", "buckets", 0),
        ("create", "buckets", 201),
        ("watch", "buckets", 200),
    ]


# --- the stream of a watch


async def test_a_watch_asks_for_bookmarks_and_an_end(
    client: KubeClient, server: StubApiServer
) -> None:
    async with client.watch(CLAIMS, namespace="ns", resource_version="100", timeout_s=301.7):
        pass
    assert server.seen[-1].path.endswith("/namespaces/ns/bucketclaims")
    assert server.seen[-1].query == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": "100",
        "timeoutSeconds": "301",
    }


async def test_lines_end_at_the_newline_byte_only(
    client: KubeClient, server: StubApiServer
) -> None:
    odd = "\u2028 \u2029 \u0085 \x1c \v \f".encode()
    async with client.watch(BUCKETS, resource_version="100", timeout_s=300) as lines:
        watcher = await server.watcher()
        watcher.say(b"one" + odd + b"\n\ntw")
        assert await anext(lines) == b"one" + odd
        watcher.say(b"o\nthree\n")
        watcher.end()
        assert [line async for line in lines] == [b"two", b"three"]


async def test_a_very_long_line_is_refused(client: KubeClient, server: StubApiServer) -> None:
    async with client.watch(BUCKETS, resource_version="100", timeout_s=300) as lines:
        (await server.watcher()).say(b"x" * (16 * 2**20 + 1))
        with pytest.raises(ApiSilent, match="a line is longer than 16777216 bytes"):
            await anext(lines)


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(False, id="an orderly end within a line"),
        pytest.param(True, id="a broken connection within a line"),
    ],
)
async def test_a_half_line_is_never_given_out(
    client: KubeClient, server: StubApiServer, cut: bool
) -> None:
    async with client.watch(BUCKETS, resource_version="100", timeout_s=300) as lines:
        watcher = await server.watcher()
        watcher.say(b'whole\n{"type":"DEL')
        assert await anext(lines) == b"whole"
        if cut:
            watcher.cut()
        else:
            watcher.end()
        with pytest.raises(ApiSilent):
            await anext(lines)


async def test_a_half_open_watch_ends_five_seconds_after_its_time(
    client: KubeClient, server: StubApiServer, clock: FakeClock
) -> None:
    async with client.watch(BUCKETS, resource_version="100", timeout_s=300) as lines:
        watcher = await server.watcher()
        async with anyio.create_task_group() as tasks:

            async def expect_silence() -> None:
                with pytest.raises(ApiSilent, match="not finished within 305 s"):
                    await anext(lines)

            tasks.start_soon(expect_silence)
            await clock.wait_for_sleepers()
            assert clock.sleeping_for() == [305]
            clock.advance(305)
        del watcher


@pytest.mark.attack("a tenant's claims and accesses name things of 1 MB; both processes stay small")
async def test_a_page_of_giant_objects_is_asked_for_in_smaller_parts(
    client: KubeClient, server: StubApiServer
) -> None:
    names = [f"b-{i:02}" for i in range(30)]
    for name in names:
        server.put(BUCKETS, Key("", name), spec={"driverName": "x" * 10**6})
    found: list[str] = []
    token = ""
    while True:
        page = await client.list(BUCKETS, continue_token=token)
        assert sum(map(len, page.items)) <= PAGE_LIMIT_BYTES
        found += [json.loads(item)["metadata"]["name"] for item in page.items]
        if not (token := page.continue_token):
            break
    assert found == names
    assert server.count("list") < 20
    # The first page of full size may be compressed; small ones of giants are not.
    encodings = [seen.headers["Accept-Encoding"] for seen in server.seen]
    assert "gzip" in encodings[0]
    assert set(encodings[1:]) == {"identity"}


async def test_pages_grow_to_what_was_asked_for(client: KubeClient, server: StubApiServer) -> None:
    for i in range(600):
        server.put(BUCKETS, Key("", f"b-{i:03}"))
    sizes = []
    token = ""
    while True:
        page = await client.list(BUCKETS, limit=300, continue_token=token)
        sizes.append(len(page.items))
        if not (token := page.continue_token):
            break
    assert sizes == [125, 300, 175]
