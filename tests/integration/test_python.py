"""The SDK as a tenant uses it: a real API server under a tenant's rights, and a real S3."""

import io
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import kr8s
import pytest
from tests.integration.test_cli import TENANT_ROLE

from cosi_operator import sdk
from cosi_operator.sdk import asyncio as async_sdk
from demo.screen import Screen
from demo.setup import start
from demo.world import NAMESPACE, World

MANIFESTS = Path(__file__).resolve().parents[2] / "hack/demo/manifests"
PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A real API server, a real S3 and its driver, and the administrator's classes."""
    with tempfile.TemporaryDirectory(prefix="cosi-") as directory, ExitStack() as stack:
        world = start(Screen(io.StringIO(), colour=False), Path(directory), stack)
        world.plane.run_kubectl("apply", "-f", str(MANIFESTS / "classes.yaml"))
        world.plane.apply(TENANT_ROLE.replace("NAMESPACE", NAMESPACE))
        yield world


@pytest.fixture(scope="module")
def kubeconfig(world: World) -> str:
    """Of a tenant, who may not read classes and Buckets."""
    return str(world.plane.kubeconfig_for(NAMESPACE, "tenant"))


@pytest.fixture(scope="module")
def api(kubeconfig: str) -> kr8s.Api:
    return sdk.api(kubeconfig)


@pytest.fixture
async def async_api(kubeconfig: str) -> AsyncIterator[kr8s.asyncio.Api]:
    found = await async_sdk.api(kubeconfig)
    yield found
    assert found._session is not None
    await found._session.aclose()


def make_claim(api: kr8s.Api, name: str, **spec: object) -> sdk.BucketClaim:
    body = {"bucketClassName": "standard", "protocols": ["S3"], **spec}
    claim = sdk.BucketClaim({"metadata": {"name": name}, "spec": body}, NAMESPACE, api)
    claim.create()
    return claim


def make_access(api: kr8s.Api, name: str) -> sdk.BucketAccess:
    spec = {
        "bucketClaimName": name,
        "bucketAccessClassName": "keys",
        "credentialsSecretName": f"{name}-keys",
        "protocol": "S3",
    }
    access = sdk.BucketAccess({"metadata": {"name": name}, "spec": spec}, NAMESPACE, api)
    access.create()
    return access


def test_a_tenant_creates_a_bucket_waits_for_it_and_uses_it(world: World, api: kr8s.Api) -> None:
    claim, access = make_claim(api, "photos"), make_access(api, "photos")
    claim.wait_ready(timeout=PATIENCE_S)
    access.wait_ready(timeout=PATIENCE_S)
    assert claim.is_ready
    assert access.why().is_ready

    keys = access.credentials()
    assert keys.bucket in world.storage.buckets()
    s3 = keys.boto3_client()
    s3.put_object(Bucket=keys.bucket, Key="cat.jpg", Body=b"a cat")
    assert s3.get_object(Bucket=keys.bucket, Key="cat.jpg")["Body"].read() == b"a cat"
    s3.delete_object(Bucket=keys.bucket, Key="cat.jpg")
    assert keys.access_secret_key not in repr((claim, access, keys))

    access.delete()
    claim.delete()


def test_a_refused_claim_says_why_and_who_can_act(world: World, api: kr8s.Api) -> None:
    world.plane.run_kubectl("apply", "-f", str(MANIFESTS / "refused.yaml"))
    claim = sdk.BucketClaim.get("refused", NAMESPACE, api)
    with pytest.raises(sdk.StalledError, match=r"BucketClaim shop/refused is not ready \(Driver"):
        claim.wait_ready(timeout=PATIENCE_S)
    told = claim.why()
    assert not told.is_ready
    assert [cause.kind for cause in told.causes] == ["BucketClaim"]  # a tenant sees no Bucket
    assert "cluster administrator" in str(told)
    claim.delete()


async def test_the_asynchronous_classes_see_the_same(
    world: World, api: kr8s.Api, async_api: kr8s.asyncio.Api
) -> None:
    make_claim(api, "logs")
    make_access(api, "logs")
    claim = await async_sdk.BucketClaim.get("logs", NAMESPACE, async_api)
    await claim.wait_ready(timeout=PATIENCE_S)
    access = await async_sdk.BucketAccess.get("logs", NAMESPACE, async_api)
    await access.wait_ready(timeout=PATIENCE_S)
    assert (await access.credentials()).bucket in world.storage.buckets()
    with pytest.raises(sdk.Forbidden, match="get buckets"):
        await async_sdk.Bucket.get("any", api=async_api)
    await access.delete()
    await claim.delete()


def test_what_kr8s_itself_offers_works_with_the_api_object_of_the_sdk(world: World) -> None:
    """Its wait, which watches, and its discovery of kinds, whose answers are no objects."""
    api = sdk.api(str(world.plane.admin_kubeconfig))
    claim = make_claim(api, "of-kr8s")
    claim.wait_ready(timeout=PATIENCE_S)
    claim.wait("condition=Ready", timeout=PATIENCE_S)
    assert "bucketclaims" in {kind["name"] for kind in api.api_resources()}
    assert api.lookup_kind("bucketclaims")
    claim.delete()
