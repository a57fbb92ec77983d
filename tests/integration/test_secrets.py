"""Secrets renewed and released on a real API server, with the rights of the sidecar's role."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace

from cosi_operator.api.view import Key
from cosi_operator.clock import RealClock
from cosi_operator.driver.credentials import Credentials, S3Credentials
from cosi_operator.kube.client import KubeClient
from cosi_operator.plan import names
from cosi_operator.plan.facts import SecretAllowed, SecretIs
from cosi_operator.sidecar.secret_content import SecretContent, secret_data
from cosi_operator.sidecar.secrets import Secrets
from testbed import NAMESPACE, Testbed
from testbed.objects import Json

CONTENT = SecretContent(
    access_uid="uid-1",
    bucket_name="bucket-0",
    bucket_id="id-7",
    account_id="acct-7",
    authentication_type="Key",
    protocols=("S3",),
    credentials=Credentials(s3=S3Credentials("AKIA", "s3cret", "https://s3.example.com", "eu")),
)
RENEWED = replace(
    CONTENT, account_id="acct-8", credentials=Credentials(s3=S3Credentials("AKIB", "n3w"))
)


def with_secrets[R](bed: Testbed, act: Callable[[Secrets], Awaitable[R]]) -> R:
    async def run() -> R:
        kubeconfig = str(bed.plane.kubeconfig_for(*bed.accounts["sidecar"]))
        async with await KubeClient.connect(
            kubeconfig, clock=RealClock(), user_agent="test"
        ) as client:
            return await act(Secrets(client))

    return asyncio.run(run())


def text_of(secret: Json) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_a_secret_is_renewed_in_place(bed: Testbed, name: str) -> None:
    key = Key(NAMESPACE, name)
    ours = SecretIs(exists=True, ours=True, has_finalizer=True, account=CONTENT.account_id)
    renewed = replace(ours, account=RENEWED.account_id)
    assert with_secrets(bed, lambda secrets: secrets.create(key, CONTENT)) == ours
    bed.edit("secrets", name, lambda body: body["data"].update(note="eA=="))
    before = bed.get("secrets", name)
    assert with_secrets(bed, lambda secrets: secrets.holds(key, CONTENT)) is True
    assert with_secrets(bed, lambda secrets: secrets.holds(key, RENEWED)) is False

    assert with_secrets(bed, lambda secrets: secrets.update(key, RENEWED)) == renewed
    after = bed.get("secrets", name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert text_of(after) == {**secret_data(RENEWED, extra_keys=True), "note": "x"}
    assert with_secrets(bed, lambda secrets: secrets.update(key, RENEWED)) == renewed
    version = bed.get("secrets", name)["metadata"]["resourceVersion"]
    assert version == after["metadata"]["resourceVersion"]


def test_an_immutable_secret_is_not_renewed_and_the_result_shows_no_value(
    bed: Testbed, name: str
) -> None:
    key = Key(NAMESPACE, name)
    with_secrets(bed, lambda secrets: secrets.create(key, CONTENT))
    bed.edit("secrets", name, lambda body: body.update(immutable=True))
    result = with_secrets(bed, lambda secrets: secrets.update(key, RENEWED))
    assert isinstance(result, SecretAllowed)
    assert result.refused == f"update secrets {NAMESPACE}/{name}"
    assert text_of(bed.get("secrets", name))["AWS_ACCESS_KEY_ID"] == "AKIA"


def test_a_deleted_secret_that_no_access_recognises_goes_when_it_is_released(
    bed: Testbed, name: str
) -> None:
    key = Key(NAMESPACE, name)
    with_secrets(bed, lambda secrets: secrets.create(key, CONTENT))
    bed.edit("secrets", name, lambda body: body["data"].update(BucketInfo="AAAA"))
    bed.delete("secrets", name)
    assert bed.get("secrets", name)["metadata"]["finalizers"] == [names.SECRET_FINALIZER]
    with_secrets(bed, lambda secrets: secrets.release(key, frozenset({"uid-1"})))
    assert bed.find("secrets", name) is None
    with_secrets(bed, lambda secrets: secrets.release(key, frozenset()))


def test_the_secret_of_a_live_access_is_not_released(bed: Testbed, name: str) -> None:
    key = Key(NAMESPACE, name)
    with_secrets(bed, lambda secrets: secrets.create(key, CONTENT))
    before = bed.get("secrets", name)
    with_secrets(bed, lambda secrets: secrets.release(key, frozenset({"uid-1", "uid-2"})))
    assert bed.get("secrets", name) == before
    with_secrets(bed, lambda secrets: secrets.release(key, frozenset({"uid-2"})))
    after = bed.get("secrets", name)
    assert after["data"] == before["data"]
    assert "finalizers" not in after["metadata"]
