"""What is no answer of an API server ends as a documented error, in both flavours, and in time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.apiserver import Reply
from tests.unit.sdk.conftest import Shop

from cosi_operator import cli, sdk
from cosi_operator.api.resources import BUCKET_CLAIMS
from cosi_operator.api.view import Key
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk import read as reader
from cosi_operator.sdk.session import OBJECTS

NO_MESSAGE = {
    "an object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"t"',
    "an error of a gateway": b'{"error": "denied"}',
    "a message that is a number": b'{"message": 5}',
    "nothing": b"",
    "not UTF-8": b'{"message": "\xff"}',
    "deeply nested": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
NO_OBJECT = {
    "HTML": b"<html>login</html>",
    "a part": b'{"metadata": {"name": "pho',
    "nothing": b"",
    "Latin-1": b'{"metadata": {"name": "photos"}, "kind": "\xe9"}',
    "null": b"null",
    "an object without fields": b"{}",
    "a list": b"[]",
    "a text": b'"hi"',
    "metadata that are no object": b'{"metadata": "x", "items": []}',
    "deeply nested": b'{"metadata": {"name": "photos"}, "items": [], "x": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
}
NO_ITEMS = {
    "numbers": b'{"metadata": {}, "items": [1, null]}',
    "no names": b'{"metadata": {}, "items": [{"metadata": null}, {"metadata": {"name": 5}}]}',
    "an object": b'{"metadata": {}, "items": {"a": 1}}',
    "deeply nested": b'{"metadata": {}, "items": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
}


def new_claim() -> sdk.BucketClaim:
    return sdk.BucketClaim({"metadata": {"name": "new", "namespace": "shop"}, "spec": {}})


CALLS: dict[str, tuple[str, Callable[[], object]]] = {
    "get": ("get", lambda: sdk.BucketClaim.get("photos", namespace="shop")),
    "list": ("list", lambda: list(sdk.BucketClaim.list(namespace="shop"))),
    "list of kr8s": (
        "list",
        lambda: list(sdk.BucketClaim.list(namespace="shop", allow_unknown_type=True)),
    ),
    "get by label": ("list", lambda: sdk.BucketClaim.get(label_selector="a=b", namespace="shop")),
    "create": ("create", lambda: new_claim().create()),
    "delete": ("delete", lambda: new_claim().delete()),
    "patch": ("patch", lambda: new_claim().patch({"spec": {}})),
    "refresh": ("get", lambda: new_claim().refresh()),
}


@pytest.mark.parametrize("status", [401, 403, 409, 418, 422, 500])
@pytest.mark.parametrize("body", NO_MESSAGE)
def test_a_refusal_without_a_message_keeps_its_status(body: str, status: int, shop: Shop) -> None:
    sdk.api()
    for verb, call in CALLS.values():
        shop.server._faults.clear()
        shop.server.fail_next(verb, *[Reply(status, body=NO_MESSAGE[body])] * 9)
        with pytest.raises(sdk.ApiError) as told:
            call()
        assert (told.value.status, told.value.reason) == (status, "Unknown")
        assert (told.value.__context__, told.value.__cause__) == (None, None)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("body", NO_MESSAGE)
def test_cosi_tells_such_a_refusal_in_one_line(
    body: str, status: int, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("version", "list"):
        shop.server._faults.clear()
        shop.server.fail_next(verb, *[Reply(status, body=NO_MESSAGE[body])] * 9)
        assert cli.main(["status", "-n", "shop"]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        assert (
            str(status) in printed
            or "does not serve" in printed
            or "no right" in printed
            or "may list" in printed
        )


@pytest.mark.parametrize("body", NO_OBJECT)
def test_an_answer_that_is_no_object_is_no_answer(body: str, shop: Shop) -> None:
    sdk.api()
    for name, (verb, call) in CALLS.items():
        if name == "delete":  # any JSON object is an answer
            continue
        shop.server._faults.clear()
        shop.server.fail_next(verb, *[Reply(200, body=NO_OBJECT[body])] * 9)
        with pytest.raises(
            sdk.ApiSilent, match=r"bucketclaims.*: (not readable|the answer is not)"
        ):
            call()


@pytest.mark.parametrize("body", NO_ITEMS)
def test_items_that_are_no_objects_are_no_answer(body: str, shop: Shop) -> None:
    shop.server.fail_next("list", Reply(200, body=NO_ITEMS[body]))
    with pytest.raises(sdk.ApiSilent, match=r"list bucketclaims.*: not readable"):
        list(sdk.BucketClaim.list(namespace="shop"))


@pytest.mark.parametrize("body", NO_OBJECT)
async def test_the_asynchronous_classes_say_the_same(body: str, shop: Shop) -> None:
    await async_sdk.api()
    shop.server.fail_next("get", Reply(200, body=NO_OBJECT[body]))
    shop.server.fail_next("list", Reply(200, body=NO_OBJECT[body]))
    with pytest.raises(sdk.ApiSilent):
        await async_sdk.BucketClaim.get("photos", namespace="shop")
    with pytest.raises(sdk.ApiSilent):
        [each async for each in async_sdk.BucketClaim.list(namespace="shop")]


def test_fields_of_another_type_are_told_by_all_methods(shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    shop.server.put(BUCKET_CLAIMS, Key("shop", "photos"), status="x")
    with pytest.raises(sdk.ApiSilent, match=r"BucketClaim shop/photos: not readable: Expected"):
        claim.wait_ready(timeout=1)


def test_a_fault_of_the_caller_is_no_silence_of_the_server(shop: Shop) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        sdk.BucketClaim({"metadata": {"name": "new"}, "spec": {"a": {1}}}).create()
    assert shop.server.seen == []


def endless(name: Callable[[int], str]) -> Iterator[Reply]:
    number = 0
    while True:
        number += 1
        yield Reply(200, body=json.dumps({"metadata": {"continue": name(number)}}).encode())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param(lambda _: "same", "the same pages again and again", id="the same token"),
        pytest.param(lambda n: "ab"[n % 2], "the same pages again and again", id="two tokens"),
        pytest.param(str, "the list is not complete within 0 s", id="always another token"),
    ],
)
def test_a_list_without_an_end_ends(
    name: Callable[[int], str],
    said: str,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reader, "LIST_TIMEOUT_S", 0.0 if " 0 s" in said else 300.0)
    answers = endless(name)
    monkeypatch.setattr(
        shop.server, "_fault", lambda verb: next(answers) if verb == "list" else None
    )
    with pytest.raises(sdk.ApiSilent, match=said):
        list(sdk.BucketClaim.list(namespace="shop"))
    assert cli.main(["status", "-n", "shop"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["create", "delete", "patch"])
def test_a_write_that_a_proxy_redirects_to_its_login_page_was_not_done(
    verb: str, shop: Shop
) -> None:
    sdk.api()
    shop.server.fail_next(verb, Reply(302, headers={"Location": "/version"}))
    with pytest.raises(sdk.ApiError) as told:
        CALLS[verb][1]()
    assert told.value.status == 302


@pytest.mark.parametrize(
    ("path", "is_object"),
    [
        pytest.param("/apis/objectstorage.k8s.io/v1alpha1/buckets", True, id="list -> checked"),
        pytest.param(
            "/k8s/clusters/c-m-x/apis/objectstorage.k8s.io/v1alpha1/buckets/b",
            True,
            id="object behind a path, as Rancher's -> checked",
        ),
        pytest.param("/apis/objectstorage.k8s.io/v1alpha1", False, id="discovery -> not checked"),
        pytest.param(
            "/apis/objectstorage.k8s.io/", False, id="discovery of a group -> not checked"
        ),
    ],
)
def test_answers_with_objects_are_told_from_others(path: str, is_object: bool) -> None:
    assert bool(OBJECTS.match(path)) == is_object


@asynccontextmanager
async def refusing_proxy(status_line: bytes) -> AsyncIterator[str]:
    """The URL of a proxy that answers each request with this line."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(status_line + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"HTTP/1.1 407 canary", "the proxy refused the connection with status 407"),
        (
            b"HTTP/1.1 502 \x1b[31mcanary\x7f",
            "no answer|the proxy refused .* with status 502|illeg",
        ),
        (b"HTTP/1.1 407", "the proxy refused the connection with status 407"),
        (b"HTTP/1.1 302 Bearer canary", "the proxy refused the connection with status 302"),
        (b"HTTP/1.1 999 canary\xe9", "the proxy refused the connection with status 999"),
    ],
)
@pytest.mark.attack("the reason of a proxy's refusal is shown as the proxy wrote it")
async def test_a_refusal_of_a_proxy_shows_its_status_alone(
    line: bytes, words: str, tmp_path: Path
) -> None:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    async with refusing_proxy(line) as url:
        cluster = {"server": "https://api.example:6443", "proxy-url": url}
        written = config | {"clusters": [{"name": "c", "cluster": cluster}]}
        (tmp_path / "config").write_text(json.dumps(written))
        with pytest.raises(sdk.ApiSilent, match=words) as raised:
            await async_sdk.api(tmp_path / "config")
    for shown in (str(raised.value), repr(raised.value)):
        assert "canary" not in shown
        assert "\x1b" not in shown
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.attack("what a server redirects to is shown as the server wrote it")
def test_a_redirect_to_no_address_shows_nothing_of_it(shop: Shop) -> None:
    sdk.api()
    location = {"Location": "http://h:canary/"}
    shop.server.fail_next("get", Reply(302, body=b"", headers=location))
    with pytest.raises(sdk.ApiSilent) as raised:
        sdk.BucketClaim.get("photos", namespace="shop")
    assert "canary" not in str(raised.value)
