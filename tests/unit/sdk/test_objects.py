"""The classes against a server: both flavours do the same, and no error shows a secret."""

import base64
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kr8s
import pytest
from tests.support.apiserver import Reply
from tests.support.sdk import TOKEN, written
from tests.unit.sdk.conftest import KEY_ID, SECRET_KEY, Shop, bucket_info

from cosi_operator import sdk
from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.sdk import asyncio as async_sdk
from cosi_operator.sdk import objects

OPERATOR = Path(sdk.__file__).parents[2]
PHOTOS, KEYS = Key("shop", "photos"), Key("shop", "photos-keys")


def conditions(reason: str, *, stalled: bool, generation: int = 0) -> dict[str, Any]:
    common = {
        "reason": reason,
        "message": f"Because of {reason}.",
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    found = [{"type": "Ready", "status": "False", **common}]
    if stalled:
        found.append({"type": "Stalled", "status": "True", **common})
    return {"bucketReady": False, "conditions": found}


def test_an_object_is_read_with_one_request(shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    assert (claim.name, claim.namespace, claim.is_ready) == ("photos", "shop", True)
    assert [seen.verb for seen in shop.server.seen] == ["get"]
    assert sdk.Bucket.get("bucket-1").bucket_id == "photos-1"
    assert sdk.BucketClass.get("gold").driver_name == "d.example.com"
    assert sdk.BucketAccessClass.get("keys").driver_name == "d.example.com"


def test_the_objects_of_a_namespace_are_listed(shop: Shop) -> None:
    assert [str(each) for each in sdk.BucketAccess.list(namespace="shop")] == ["photos-keys"]
    assert [str(each) for each in sdk.BucketClaim.list(namespace=kr8s.ALL)] == ["photos"]


def test_an_object_that_does_not_exist_raises_what_kr8s_raises(shop: Shop) -> None:
    with pytest.raises(kr8s.NotFoundError, match="BucketClaim shop/none does not exist"):
        sdk.BucketClaim.get("none", namespace="shop")


def new_claim() -> dict[str, Any]:
    return {"metadata": {"name": "new", "namespace": "shop"}, "spec": {"bucketClassName": "gold"}}


def test_what_kr8s_does_without_a_right_is_forbidden_too(shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    for verb in ("get", "list", "create", "delete", "patch"):
        shop.server.forbid(verb, "bucketclaims")
    failing: dict[str, Callable[[], object]] = {
        "list": lambda: list(sdk.BucketClaim.list(namespace="shop")),
        "create": sdk.BucketClaim(new_claim()).create,
        "delete": claim.delete,
        "patch": lambda: claim.patch({"metadata": {"labels": {"a": "b"}}}),
        "get": claim.refresh,
    }
    for verb, fail in failing.items():
        with pytest.raises(sdk.Forbidden, match=f"{verb} bucketclaims"):
            fail()
    with pytest.raises(sdk.Forbidden):
        sdk.BucketClaim.get(namespace="shop", label_selector="a=b")


async def test_what_kr8s_does_without_a_right_is_forbidden_with_asyncio_too(shop: Shop) -> None:
    claim = await async_sdk.BucketClaim.get("photos", namespace="shop")
    for verb in ("get", "list", "create", "delete", "patch"):
        shop.server.forbid(verb, "bucketclaims")
    with pytest.raises(sdk.Forbidden, match="list bucketclaims"):
        _ = [each async for each in async_sdk.BucketClaim.list(namespace="shop")]
    for verb, fail in {
        "create": (await async_sdk.BucketClaim(new_claim())).create,
        "delete": claim.delete,
        "get": claim.refresh,
    }.items():
        with pytest.raises(sdk.Forbidden, match=f"{verb} bucketclaims"):
            await fail()
    assert claim.api._session is not None
    await claim.api._session.aclose()


def test_what_kr8s_is_refused_is_an_error_of_the_sdk(shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    shop.server.fail_next("list", Reply(500, "InternalError", "broken"))
    with pytest.raises(sdk.ApiError, match=r"500 .*list bucketclaims"):
        list(sdk.BucketClaim.list(namespace="shop"))
    shop.server.drop(BUCKET_CLAIMS, PHOTOS)
    for gone in (claim.delete, claim.refresh):
        with pytest.raises(kr8s.NotFoundError):
            gone()


LONG = "a" * 70_000  # httpx refuses a URL of 65,536 characters
NO_NAMES = ["..", "a/../b", "photos?limit=1", "photos%2Fx", "photos#", "pho\x1btos", "", LONG]


@pytest.mark.attack("a name with slashes and dots makes the SDK read another object")
@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_no_object_can_have_is_not_asked_for(shop: Shop, name: str) -> None:
    with pytest.raises(kr8s.NotFoundError, match="does not exist"):
        sdk.BucketClaim.get(name, namespace="shop")
    with pytest.raises(kr8s.NotFoundError, match="does not exist"):
        sdk.BucketClaim.get("photos", namespace=f"{name}/x")
    assert shop.server.seen == []


@pytest.mark.attack("a name with slashes and dots makes kr8s's own verbs change another object")
@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_no_object_can_have_is_not_sent_by_kr8s(shop: Shop, name: str) -> None:
    odd = sdk.BucketClaim({"metadata": {"name": name, "namespace": "shop"}})
    homeless = sdk.BucketClaim({"metadata": {"name": "photos", "namespace": f"{name}/x"}})
    failing: list[Callable[[], object]] = [
        odd.delete,
        odd.refresh,
        lambda: odd.patch({"metadata": {"labels": {"a": "b"}}}),
        lambda: odd.exists(ensure=True),
        lambda: list(odd.watch()),
        homeless.create,
        homeless.delete,
        lambda: list(sdk.BucketClaim.list(namespace=f"{name}/x")),
        lambda: sdk.BucketClaim.get(namespace=f"{name}/x", label_selector="a=b"),
    ]
    for fail in failing:
        with pytest.raises(kr8s.NotFoundError, match="no object can have this name") as raised:
            fail()
        assert len(str(raised.value)) < 400
    assert not odd.exists()
    assert shop.server.seen == []


@pytest.mark.attack("names in an object that no other object can have end each SDK call")
def test_an_access_that_names_nothing_possible_is_explained(shop: Shop) -> None:
    spec = {
        "bucketAccessClassName": LONG,
        "bucketClaimName": LONG,
        "credentialsSecretName": LONG,
    }
    granted = {"accessGranted": True, "accountID": "account-1"}
    shop.server.put(BUCKET_ACCESSES, Key("shop", "x"), spec=spec, status=granted)
    access = sdk.BucketAccess.get("x", namespace="shop")
    with pytest.raises(sdk.CredentialsError, match="no Secret can have this name") as raised:
        access.credentials()
    assert len(str(raised.value)) < 500
    why = access.why()
    assert [link.kind for link in why.links if link.state == "missing"] == [
        "BucketClaim",
        "BucketAccessClass",
        "Secret",
    ]
    assert "No BucketClaim can have this name" in str(why)
    assert len(str(why)) < 2000


@pytest.mark.attack("a text in an exception of the SDK drives the terminal that shows it")
def test_no_exception_holds_a_control_character(shop: Shop, tmp_path: Path) -> None:
    esc = "\x1b[31m\n"
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such"}
    told = written(shop.server, tmp_path / "hint", exec={**spec, "installHint": f"get it {esc}"})
    status = {**conditions(f"Odd{esc}", stalled=True), "bucketReady": False}
    shop.server.put(BUCKET_CLAIMS, Key("shop", "odd"), status=status)
    odd = sdk.BucketClaim.get("odd", namespace="shop")
    failing: list[Callable[[], object]] = [
        lambda: sdk.api(kubeconfig=str(told)),
        lambda: sdk.api(kubeconfig=f"/none/{esc}"),
        lambda: sdk.api(context=esc),
        lambda: sdk.BucketClaim.get(esc, namespace="shop"),
        lambda: sdk.BucketClaim.get("photos", namespace=esc),
        lambda: odd.wait_ready(timeout=0.1),
    ]
    for fail in failing:
        with pytest.raises((sdk.KubeconfigError, sdk.StalledError, kr8s.NotFoundError)) as raised:
            fail()
        assert str(raised.value).isprintable()
    for kind in (sdk.CredentialsError, sdk.NotReadyError, sdk.ApiSilent):
        assert str(kind(esc)).isprintable()
    assert str(sdk.ApiError(500, "InternalError", esc)).isprintable()


@pytest.mark.attack("an access names a Secret of another namespace with slashes and dots")
@pytest.mark.parametrize("name", ["../../shop/secrets/photos-keys", "", ".", "photos-keys?a=b"])
def test_a_secret_name_with_a_path_reads_no_secret(shop: Shop, name: str) -> None:
    spec = {"bucketClaimName": "photos", "credentialsSecretName": name}
    shop.server.put(BUCKET_ACCESSES, Key("team", "x"), spec=spec)
    access = sdk.BucketAccess.get("x", namespace="team")
    with pytest.raises(sdk.CredentialsError, match="does not exist"):
        access.credentials()
    access.why()
    assert not any("secrets" in seen.path for seen in shop.server.seen)


def test_a_ready_claim_ends_the_wait_at_once(shop: Shop) -> None:
    claim = sdk.BucketClaim("photos", namespace="shop")
    claim.wait_ready(timeout=5)
    claim.wait_ready(timeout=None)
    assert claim.is_ready
    assert claim.spec.bucketClassName == "gold"


def test_a_stalled_claim_ends_the_wait_with_the_reason(shop: Shop) -> None:
    status = conditions("DriverInvalidArgument", stalled=True)
    shop.server.put(BUCKET_CLAIMS, PHOTOS, status=status)
    with pytest.raises(sdk.StalledError, match=r"shop/photos is not ready \(DriverInvalidArgument"):
        sdk.BucketClaim.get("photos", namespace="shop").wait_ready(timeout=5)


def test_a_stall_of_an_older_spec_does_not_end_the_wait(shop: Shop) -> None:
    status = conditions("DriverInvalidArgument", stalled=True, generation=1)
    shop.server.put(BUCKET_CLAIMS, PHOTOS, status=status, metadata={"generation": 2})
    with pytest.raises(sdk.NotReadyError, match=r"waited 0\.2 s"):
        sdk.BucketClaim.get("photos", namespace="shop").wait_ready(timeout=0.2)


def test_a_timeout_that_is_no_number_ends_the_wait(shop: Shop) -> None:
    shop.server.put(BUCKET_CLAIMS, PHOTOS, status=conditions("Pending", stalled=False))
    with pytest.raises(sdk.NotReadyError, match="waited nan s"):
        sdk.BucketClaim.get("photos", namespace="shop").wait_ready(timeout=math.nan)


def test_the_timeout_says_what_the_access_waits_for(shop: Shop) -> None:
    status = {**conditions("WaitingForBucket", stalled=False), "accessGranted": False}
    shop.server.put(BUCKET_ACCESSES, KEYS, status=status)
    with pytest.raises(TimeoutError, match="Because of WaitingForBucket"):
        sdk.BucketAccess.get("photos-keys", namespace="shop").wait_ready(timeout=0.2)


def test_why_names_the_cause_and_works_without_the_right_to_read_classes(shop: Shop) -> None:
    shop.server.put(BUCKETS, Key("", "bucket-1"), status=conditions("DriverInternal", stalled=True))
    status = {**conditions("DriverInternal", stalled=True), "bucketName": "bucket-1"}
    shop.server.put(BUCKET_CLAIMS, PHOTOS, status=status)
    told = sdk.BucketClaim.get("photos", namespace="shop").why()
    assert not told.is_ready
    assert [cause.kind for cause in told.causes] == ["Bucket"]
    assert "Because of DriverInternal." in str(told)
    for plural in ("buckets", "bucketclasses", "bucketaccessclasses", "secrets"):
        shop.server.forbid("get", plural)
    before = len(shop.server.seen)
    told = sdk.BucketAccess.get("photos-keys", namespace="shop").why()
    assert [cause.kind for cause in told.causes] == ["BucketClaim"]
    assert len(shop.server.seen) - before < 8  # one request for each object, also when forbidden


SPEC = {
    "bucketAccessClassName": "keys",
    "bucketClaimName": "photos",
    "credentialsSecretName": "photos-keys",
}
NOT_OWNED = {
    "type": "Ready",
    "status": "False",
    "reason": "SecretNotOwned",
    "message": "The Secret is one of another access.",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "observedGeneration": 1,
}


def test_credentials_come_from_the_secret(shop: Shop) -> None:
    keys = sdk.BucketAccess.get("photos-keys", namespace="shop").credentials()
    assert (keys.bucket, keys.access_secret_key) == ("photos-1", SECRET_KEY)


def test_a_secret_that_is_missing_says_why(shop: Shop) -> None:
    access = sdk.BucketAccess.get("photos-keys", namespace="shop")
    shop.server.drop(SECRETS, KEYS)
    with pytest.raises(sdk.CredentialsError, match=r"was deleted.*cosi retry"):
        access.credentials()
    shop.server.put(BUCKET_ACCESSES, KEYS, status={"accessGranted": False})
    with pytest.raises(sdk.CredentialsError, match="has written no condition yet"):
        access.credentials()


def test_a_secret_that_may_not_be_read_says_which_right_is_missing(shop: Shop) -> None:
    shop.server.forbid("get", "secrets")
    with pytest.raises(sdk.Forbidden, match="get secrets shop/photos-keys"):
        sdk.BucketAccess.get("photos-keys", namespace="shop").credentials()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "the operator has written no condition yet"),
        ({"accessGranted": False, "conditions": [NOT_OWNED]}, "of another access"),
        ({"accountID": "a", "conditions": [NOT_OWNED]}, "of another access"),
        ({"accountID": "a"}, "was not created for BucketAccess shop/second"),
        ({"accessGranted": True, "accountID": "a"}, "another spec.credentialsSecretName"),
    ],
    ids=[
        "the access was never granted -> its name leads to no keys",
        "the Secret belongs to another access -> not its keys",
        "the same during a rotation -> not its keys",
        "upstream's CRDs, which drop conditions -> not its keys",
        "granted, and another access has its Secret's name since -> not its keys",
    ],
)
def test_keys_of_another_access_are_not_returned(
    shop: Shop, status: dict[str, Any], words: str
) -> None:
    shop.server.put(BUCKET_ACCESSES, Key("shop", "second"), spec=SPEC, status=status)
    access = sdk.BucketAccess.get("second", namespace="shop")
    with pytest.raises(sdk.CredentialsError, match=words) as refused:
        access.credentials()
    assert SECRET_KEY not in str(refused.value)


def test_a_secret_that_a_person_wrote_holds_no_keys_of_the_access(shop: Shop) -> None:
    info = base64.b64encode(json.dumps(bucket_info()).encode()).decode()
    shop.server.put(SECRETS, KEYS, data={"BucketInfo": info})
    with pytest.raises(sdk.CredentialsError, match="was not created for BucketAccess"):
        sdk.BucketAccess.get("photos-keys", namespace="shop").credentials()


def test_keys_during_a_rotation_are_those_in_the_secret(shop: Shop) -> None:
    status = {"accessGranted": False, "accountID": "a"}
    shop.server.put(BUCKET_ACCESSES, Key("shop", "photos-keys"), spec=SPEC, status=status)
    assert sdk.BucketAccess.get("photos-keys", namespace="shop").credentials().bucket


def test_no_text_and_no_log_shows_a_credential(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    access = sdk.BucketAccess.get("photos-keys", namespace="shop")
    keys = access.credentials()
    api = sdk.api()
    texts = [repr(access), str(access), repr(keys), repr(api), str(access.why()), caplog.text]
    shop.server.fail_next("get", Reply(500, "InternalError", f"broken {SECRET_KEY}"))
    with pytest.raises(sdk.ApiError) as raised:
        access.credentials()
    texts += [str(raised.value), repr(raised.value)]
    assert not any(key in text for key in (KEY_ID, SECRET_KEY, TOKEN) for text in texts)


def test_an_expired_token_is_renewed_once(shop: Shop) -> None:
    claim = sdk.BucketClaim.get("photos", namespace="shop")
    shop.server.fail_next("get", Reply(401, "Unauthorized", "expired"))
    assert claim.why().is_ready


def test_a_kubeconfig_and_a_context_can_be_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    with pytest.raises(sdk.KubeconfigError, match="/nonexistent does not exist"):
        sdk.BucketClaim.get("photos", namespace="shop")
    api = sdk.api(str(shop.kubeconfig), context="stub")
    assert sdk.BucketClaim.get("photos", namespace="shop", api=api).is_ready
    with pytest.raises(sdk.KubeconfigError, match="no `none` in contexts"):
        sdk.api(str(shop.kubeconfig), context="none")


async def test_a_kubeconfig_can_be_named_as_a_path(shop: Shop) -> None:
    assert sdk.api(kubeconfig=shop.kubeconfig).auth.server == shop.server.url
    api = await async_sdk.api(kubeconfig=shop.kubeconfig)
    assert api.auth.server == shop.server.url


def test_a_claim_is_created_and_deleted_with_kr8ss_own_verbs(shop: Shop) -> None:
    spec = {"bucketClassName": "gold", "protocols": ["S3"]}
    claim = sdk.BucketClaim({"metadata": {"name": "new", "namespace": "shop"}, "spec": spec})
    claim.create()
    assert sdk.BucketClaim.get("new", namespace="shop").spec.bucketClassName == "gold"
    claim.delete()
    assert not claim.exists()


async def test_the_asynchronous_classes_do_the_same(shop: Shop) -> None:
    claim = await async_sdk.BucketClaim.get("photos", namespace="shop")
    await claim.wait_ready(timeout=5)
    assert claim.is_ready
    assert (await claim.why()).is_ready
    access = await async_sdk.BucketAccess("photos-keys", namespace="shop")
    await access.wait_ready(timeout=5)
    assert (await access.why()).is_ready
    assert (await access.credentials()).access_secret_key == SECRET_KEY
    bucket = await async_sdk.Bucket.get("bucket-1")
    await bucket.wait_ready(timeout=5)
    assert (bucket.is_ready, bucket.driver_name, bucket.bucket_id) == (
        True, "d.example.com", "photos-1",
    )  # fmt: skip
    assert (await async_sdk.BucketClass.get("gold")).driver_name == "d.example.com"
    assert (await async_sdk.BucketAccessClass.get("keys")).driver_name == "d.example.com"
    assert [str(each) async for each in async_sdk.BucketClaim.list(namespace="shop")] == ["photos"]
    api = await async_sdk.api()
    assert api is claim.api
    assert api._session is not None
    await api._session.aclose()


async def test_the_synchronous_classes_work_inside_an_event_loop(shop: Shop) -> None:
    assert sdk.BucketClaim.get("photos", namespace="shop").is_ready


def test_both_flavours_have_the_same_methods() -> None:
    for name in ("Bucket", "BucketAccess", "BucketAccessClass", "BucketClaim", "BucketClass"):
        sync, other = getattr(objects, name), getattr(async_sdk, name)
        public = {word for word in vars(sync) if not word.startswith("_")}
        assert public == {word for word in vars(other) if not word.startswith("_")}, name


def test_a_class_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pod'"):
        _ = sdk.Pod


def test_what_a_pod_needs_is_there_without_kr8s() -> None:
    script = "import sys, cosi_operator.sdk as sdk; sdk.Credentials; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(OPERATOR)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"kr8s", "httpx"}.isdisjoint(done.stdout.split())


def test_a_class_without_kr8s_says_what_to_install() -> None:
    script = "import sys; sys.modules['kr8s'] = None; from cosi_operator.sdk import BucketClaim"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(OPERATOR)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = "ModuleNotFoundError: BucketClaim needs kr8s; run: pip install 'cosi-operator[cli]'"
    assert done.stderr.splitlines()[-1] == words


FORKED = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")  # Python warns of a fork with threads
from cosi_operator.sdk import BucketAccess
access = BucketAccess.get("photos-keys", namespace="shop")
child = os.fork()
if child == 0:
    signal.alarm(20)
    again = BucketAccess.get("photos-keys", namespace="shop")
    os._exit(0 if again.credentials() == access.credentials() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_can_ask_too(shop: Shop) -> None:
    """As the workers of multiprocessing, gunicorn and Celery are."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env={"PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(shop.kubeconfig)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
