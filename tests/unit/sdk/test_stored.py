"""Whatever an object or a Secret holds, the SDK raises what it documents, without a value."""

import base64
import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import kr8s
import msgspec
import pytest
from tests.support.apiserver import Reply
from tests.unit.sdk.conftest import SECRET_KEY, Shop, bucket_info

from cosi_operator import sdk
from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.kube import kubeconfig_file
from cosi_operator.sdk import asyncio as async_sdk

DOCUMENTED = (
    sdk.SdkError,
    sdk.ApiError,
    sdk.ApiSilent,
    sdk.KubeconfigError,
    kr8s.NotFoundError,
)
DEEP = "[" * 100_000 + "]" * 100_000
ODD: dict[str, Any] = {
    "null": None,
    "a text": "x\x1b[31m",
    "a number": 7,
    "a long number": 10**30,
    "a list": [],
    "a list of nulls": [None],
    "an object": {"a": "b"},
    "an object in a list": [{"type": 5, "status": None}],
}
SECRET = f"{SECRET_KEY}\udcff"  # as os.environ has a byte that is not UTF-8
INFOS = {
    "deeply nested": '{"spec": {"secretS3": {"x": "' + SECRET_KEY + '", "y": ' + DEEP + "}}}",
    "a surrogate": json.dumps(bucket_info(bucketName=SECRET), ensure_ascii=False),
    "an escaped surrogate": json.dumps(bucket_info(bucketName=SECRET)),
    "no JSON": SECRET_KEY,
    "a text": json.dumps(SECRET_KEY),
    "a list": json.dumps([SECRET_KEY]),
    "a text as spec": json.dumps({"spec": SECRET_KEY}),
    "a number as key": json.dumps(bucket_info(secretS3={"accessSecretKey": 5, "x": SECRET_KEY})),
}


def everything(error: BaseException) -> Iterator[str]:
    """All that an error and those behind it can show."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        if (each := todo.pop()) is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        todo += [each.__cause__, each.__context__]


def fails_without_a_value(call: Callable[[], object]) -> None:
    """Nothing, or a documented error that holds neither the key nor a control character."""
    try:
        call()
    except DOCUMENTED as error:
        for text in everything(error):
            assert SECRET_KEY not in text
            assert "\x1b" not in text


@pytest.mark.parametrize("info", INFOS)
@pytest.mark.attack("an odd value in a Secret makes the SDK show a key in an error")
def test_an_odd_bucket_info_is_refused_without_a_value(info: str, shop: Shop) -> None:
    fails_without_a_value(lambda: sdk.Credentials.from_environ({"BucketInfo": INFOS[info]}))
    with pytest.raises(sdk.CredentialsError):
        sdk.Credentials.from_environ({"BucketInfo": INFOS[info]})
    encoded = base64.b64encode(INFOS[info].encode(errors="surrogateescape")).decode()
    fails_without_a_value(lambda: sdk.Credentials.from_secret({"data": {"BucketInfo": encoded}}))
    shop.server.put(SECRETS, Key("shop", "photos-keys"), data={"BucketInfo": encoded})
    access = sdk.BucketAccess.get("photos-keys", namespace="shop")
    with pytest.raises(sdk.CredentialsError):
        access.credentials()
    fails_without_a_value(access.credentials)


@pytest.mark.parametrize("data", ODD)
def test_odd_data_of_a_secret_is_refused(data: str, shop: Shop) -> None:
    for odd in (ODD[data], {"BucketInfo": ODD[data]}):
        with pytest.raises(sdk.CredentialsError, match="no readable key BucketInfo"):
            sdk.Credentials.from_secret({"data": odd})
        shop.server.put(SECRETS, Key("shop", "photos-keys"), data=odd)
        with pytest.raises(sdk.CredentialsError, match="no readable key BucketInfo"):
            sdk.BucketAccess.get("photos-keys", namespace="shop").credentials()


def test_a_secret_that_is_deeply_nested_is_no_answer(shop: Shop) -> None:
    access = sdk.BucketAccess.get("photos-keys", namespace="shop")
    access_now = json.dumps(shop.server.objects[BUCKET_ACCESSES.path("shop", "photos-keys")])
    secret = f'{{"metadata": {{"name": "x"}}, "data": {{"{SECRET_KEY}": {DEEP}}}}}'
    shop.server.fail_next(
        "get", Reply(200, body=access_now.encode()), Reply(200, body=secret.encode())
    )
    with pytest.raises(sdk.ApiSilent, match="nested too deeply") as raised:
        access.credentials()
    assert all(SECRET_KEY not in text for text in everything(raised.value))


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [("http://[", "eu"), ("ht!tp://a b", "eu"), ("https://h", "eu 1/../x"), ("\x1b[31m", "\x1b")],
)
def test_an_endpoint_that_boto3_refuses_is_told(endpoint: str, region: str) -> None:
    keys = sdk.Credentials("S3", "b", endpoint, region, "AKIAEXAMPLE", SECRET_KEY)
    with pytest.raises(sdk.CredentialsError, match="boto3 can't use the endpoint") as raised:
        keys.boto3_client()
    assert all(SECRET_KEY not in text for text in everything(raised.value))
    for library in ("fsspec", "pandas", "polars", "obstore"):
        keys.storage_options(library)
    keys.environ()


FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "status": lambda odd: {"status": odd},
    "conditions": lambda odd: {"status": {"bucketReady": True, "conditions": odd}},
    "ready": lambda odd: {"status": {"bucketReady": odd, "accessGranted": odd}},
    "spec": lambda odd: {"spec": odd},
    "names": lambda odd: {
        "spec": {"bucketClassName": odd, "bucketClaimName": odd, "credentialsSecretName": odd}
    },
    "metadata": lambda odd: {
        "metadata": {
            "annotations": odd,
            "finalizers": odd,
            "deletionTimestamp": odd,
            "generation": odd,
            "uid": odd,
        }
    },
    "namespace": lambda odd: {"metadata": {"namespace": odd}},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.attack("an odd status makes the SDK raise what no program expects")
def test_odd_fields_of_an_object_are_told_by_all_methods(field: str, odd: str, shop: Shop) -> None:
    kinds = (
        (BUCKET_CLAIMS, "shop", "photos", sdk.BucketClaim),
        (BUCKET_ACCESSES, "shop", "photos-keys", sdk.BucketAccess),
        (BUCKETS, "", "bucket-1", sdk.Bucket),
    )
    for resource, namespace, name, _ in kinds:
        shop.server.put(resource, Key(namespace, name), **FIELDS[field](ODD[odd]))
    for _, namespace, name, kind in kinds:
        found: list[Any] = []
        where: dict[str, Any] = {"namespace": namespace} if namespace else {}
        fails_without_a_value(lambda: found.append(kind.get(name, **where)))  # noqa: B023
        fails_without_a_value(lambda: found.extend(kind.list(**where)))  # noqa: B023
        found.append(kind({"metadata": {"name": name, **where}}))
        fails_without_a_value(found[-1].refresh)
        for each in found:
            for ask in ("is_ready", "driver_name", "bucket_id", "name", "namespace"):
                fails_without_a_value(lambda: getattr(each, ask, None))  # noqa: B023
            for call in ("why", "credentials", "exists"):
                fails_without_a_value(getattr(each, call, lambda: None))
            fails_without_a_value(lambda: each.wait_ready(timeout=0))  # noqa: B023


def modules() -> Iterator[Any]:
    for found in pkgutil.iter_modules(sdk.__path__, f"{sdk.__name__}."):
        yield importlib.import_module(found.name)
    yield kubeconfig_file


def classes() -> dict[str, type[Any]]:
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": each
        for module in modules()
        for name, each in vars(module).items()
        if isinstance(each, type) and each.__module__ == module.__name__
    }


# The modules of the SDK that see credentials, and all that their reprs show. A field that is added
# there has to be added here, or hidden.
SHOWN = {
    "client.Page": {"continue_token"},
    "client._ListMeta": {"continue_token"},
    "client._Meta": {"name", "namespace"},
    "client._Named": {"metadata"},
    "client._Request": {"key", "method", "params", "resource", "verb"},
    "connect.Resolved": {"keys", "plugin", "token"},
    "credentials.Credentials": {"bucket", "endpoint", "protocol", "region"},
    "credentials._BucketInfo": {"spec"},
    "credentials._Spec": {"azure", "bucket", "s3"},
    "kubeconfig_file.Context": {"cluster", "namespace", "user"},
    "kubeconfig_file.Kubeconfig": {"clusters", "contexts", "current_context", "users"},
    "kubeconfig_file.NamedCluster": {"cluster", "name"},
    "kubeconfig_file.NamedContext": {"context", "name"},
    "kubeconfig_file.NamedUser": {"name", "user"},
    "login.Login": {"plugin", "token"},
    "login.TokenPath": {"field", "fix", "path"},
    "plugin.Plugin": {"at_user", "hint"},
    "plugin._Printed": {"status"},
    "session._Meta": {"name", "namespace"},
}
CONFIDENTIAL = ("client", "connect", "credentials", "kubeconfig_file", "login", "plugin", "session")


def shown_by(kind: type[Any]) -> set[str]:
    """The fields whose value the repr shows."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif issubclass(kind, msgspec.Struct):
        names = list(kind.__struct_fields__)
    else:
        return set()
    shown = set()
    for name in names:
        made: Any
        if dataclasses.is_dataclass(kind):
            made = object.__new__(kind)
            for each in names:
                object.__setattr__(made, each, SECRET_KEY if each == name else "")
        else:
            made = kind(**{each: SECRET_KEY if each == name else "" for each in names})
        if SECRET_KEY in repr(made):
            shown.add(name)
    return shown


@pytest.mark.attack("a repr of what the SDK holds shows a credential")
def test_a_repr_shows_no_field_that_can_hold_a_credential() -> None:
    confidential = {name: kind for name, kind in classes().items() if name.startswith(CONFIDENTIAL)}
    shown = {name: fields for name, kind in confidential.items() if (fields := shown_by(kind))}
    assert shown == SHOWN
    hidden = set(confidential) - set(SHOWN)
    assert {"plugin.Credential", "plugin._Status", "kubeconfig_file.User"} <= hidden


@pytest.mark.parametrize(
    "status", [401, 403, 429, 500, 503], ids=lambda status: f"{status} -> an error"
)
async def test_a_refusal_does_not_mean_that_an_object_is_gone(status: int, shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    asynchronous = await async_sdk.BucketClaim.get("photos", namespace="shop")
    for ensure in (False, True):
        shop.server.fail_next("get", *[Reply(status)] * 2)
        with pytest.raises(sdk.ApiError) as raised:
            claim.exists(ensure=ensure)
        assert raised.value.status == status
        shop.server._faults.clear()
        shop.server.fail_next("get", *[Reply(status)] * 2)
        with pytest.raises(sdk.ApiError):
            await asynchronous.exists(ensure=ensure)
        shop.server._faults.clear()
        assert claim.exists(ensure=ensure)
        assert await asynchronous.exists(ensure=ensure)
    shop.server.drop(BUCKET_CLAIMS, Key("shop", "photos"))
    assert not claim.exists()
    assert not await asynchronous.exists()
    with pytest.raises(kr8s.NotFoundError):
        claim.exists(ensure=True)
