"""Lists whose pages are too large, and callers that take their time between two items."""

from types import SimpleNamespace

import kr8s.objects
import pytest
from tests.unit.sdk.conftest import Shop

from cosi_operator import sdk
from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_CLAIMS, BUCKET_CLASSES
from cosi_operator.api.view import Key
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk import read, session
from cosi_operator.sdk.client import Page, _Request

TOO_LARGE = r"the answer is larger than \d+ MiB; ask for less, for instance for one namespace"


@pytest.fixture
def many(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """More objects than one answer may hold."""
    monkeypatch.setattr(session, "BODY_LIMIT_BYTES", 20_000)
    for number in range(200):
        key = Key("shop", f"many-{number:03}")
        shop.server.put(BUCKET_CLAIMS, key, spec={"bucketClassName": "x" * 300})
        shop.server.put(SECRETS, key, data={"x": "x" * 300})
    return shop


def names(found: object) -> list[str]:
    assert isinstance(found, list)
    return sorted(each.name for each in found if each.name.startswith("many-"))


EXPECTED = [f"many-{number:03}" for number in range(200)]


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(many: Shop) -> None:
    assert names(list(sdk.BucketClaim.list(namespace="shop"))) == EXPECTED
    found = [each async for each in async_sdk.BucketClaim.list(namespace="shop")]
    assert names(found) == EXPECTED
    assert {seen.query["limit"] for seen in many.server.seen if seen.verb == "list"} == {
        "500",
        "62",
        "7",
    }


def test_kr8ss_own_list_of_secrets_is_asked_for_in_smaller_pages_too(many: Shop) -> None:
    found = list(kr8s.objects.Secret.list(namespace="shop", api=sdk.api()))
    assert names(found) == EXPECTED


def test_an_object_that_is_too_large_says_what_to_do(many: Shop) -> None:
    many.server.put(BUCKET_CLAIMS, Key("shop", "huge"), spec={"x": "x" * 30_000})
    many.server.put(SECRETS, Key("shop", "huge"), data={"x": "x" * 30_000})
    with pytest.raises(sdk.ApiSilent, match=f"list bucketclaims in shop: {TOO_LARGE}"):
        list(sdk.BucketClaim.list(namespace="shop"))
    with pytest.raises(sdk.ApiSilent, match=f"get bucketclaims shop/huge: {TOO_LARGE}"):
        sdk.BucketClaim.get("huge", namespace="shop")
    with pytest.raises(sdk.ApiSilent, match=TOO_LARGE):  # the methods of kr8s
        list(kr8s.objects.Secret.list(namespace="shop", api=sdk.api()))


async def test_the_time_of_the_caller_is_not_that_of_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, per_page_s = 0.0, 1.0
    monkeypatch.setattr(read, "anyio", SimpleNamespace(current_time=lambda: now_s))

    async def list_page(token: str) -> Page:
        nonlocal now_s
        now_s += per_page_s
        return Page((), str(int(token or 0) + 1) if token != "9" else "")

    async for _ in read.pages("list things", list_page):
        now_s += 1000.0
    per_page_s = read.LIST_TIMEOUT_S
    with pytest.raises(sdk.ApiSilent, match="list things: the list is not complete within 300 s"):
        [page async for page in read.pages("list things", list_page)]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_Request("GET", "list", BUCKET_CLAIMS, Key("shop", "")), "list bucketclaims in shop"),
        (_Request("GET", "list", BUCKET_CLAIMS, Key("", "")), "list bucketclaims"),
        (_Request("GET", "list", BUCKET_CLASSES, Key("shop", "")), "list bucketclasses"),
        (_Request("GET", "get", BUCKET_CLAIMS, Key("shop", "a")), "get bucketclaims shop/a"),
        (_Request("GET", "get", BUCKET_CLASSES, Key("", "a")), "get bucketclasses a"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_in_words_has_no_slash_without_a_name(request_: _Request, words: str) -> None:
    assert request_.words == words
