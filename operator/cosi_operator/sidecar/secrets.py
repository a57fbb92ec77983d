"""The Secret of a BucketAccess: written once, complete, and removed only if it is ours.

One key `BucketInfo`, JSON, in the shape that pods of today's Go sidecar read. Whose it is stands in
the JSON (`bc-<UID of the BucketAccess>`), so Secrets made by the Go sidecar are recognised too.
Only get, create, update and delete are needed: no list, no watch.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key
from cosi_operator.driver.v1alpha1 import Credentials
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import AlreadyExists, Forbidden, Invalid, NotFound
from cosi_operator.kube.objects import set_finalizers
from cosi_operator.plan import names
from cosi_operator.plan.steps import SecretAllowed, SecretIs

BUCKET_INFO = "BucketInfo"


@dataclass(frozen=True, slots=True)
class SecretContent:
    """All that a Secret is made from. Never printed: `credentials` hides itself."""

    access_uid: str
    bucket_id: str
    account_id: str
    authentication_type: str
    protocols: tuple[str, ...]
    credentials: Credentials


class Secrets:
    """Reads, creates and deletes the Secrets of accesses."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def read(self, key: Key, access_uid: str) -> SecretIs:
        """Look at what stands under the name; one GET."""
        try:
            raw = await self._client.get(SECRETS, key)
        except NotFound:
            return SecretIs(exists=False)
        body = msgspec.json.decode(raw)
        if not _is_ours(body, access_uid):
            return SecretIs(exists=True)
        annotations = body["metadata"].get("annotations") or {}
        return SecretIs(
            exists=True, ours=True, account_id=annotations.get(names.ACCOUNT_ID_ANNOTATION, "")
        )

    async def dry_run(self, key: Key) -> SecretIs | SecretAllowed:
        """Ask whether a Secret of this name could be created: quota, admission, rights, name."""
        body = _body(key, {BUCKET_INFO: ""}, {})
        try:
            await self._client.create(SECRETS, body, namespace=key.namespace, dry_run=True)
        except AlreadyExists:
            return SecretIs(exists=True)
        except (Forbidden, Invalid) as error:
            return SecretAllowed(refused=error.message)
        return SecretAllowed()

    async def create(self, key: Key, content: SecretContent) -> SecretIs | SecretAllowed:
        """Create the complete Secret.

        Returns:
            `SecretIs(ours=True)` when it stands; otherwise who holds the name, or why the API
            server refused.
        Raises:
            ApiSilent: it may or may not stand; read it before anything else.
        """
        info = msgspec.json.encode(bucket_info(content)).decode()
        body = _body(key, {BUCKET_INFO: info}, {names.ACCOUNT_ID_ANNOTATION: content.account_id})
        try:
            await self._client.create(SECRETS, body, namespace=key.namespace)
        except AlreadyExists:
            return await self.read(key, content.access_uid)
        except (Forbidden, Invalid) as error:
            return SecretAllowed(refused=error.message)
        return SecretIs(exists=True, ours=True, account_id=content.account_id)

    async def delete(self, key: Key, access_uid: str) -> None:
        """Take our finalizer off and delete the Secret, if it is (still) ours."""
        try:
            raw = await self._client.get(SECRETS, key)
            body = msgspec.json.decode(raw)
            if not _is_ours(body, access_uid):
                return
            meta = body["metadata"]
            if not meta.get("deletionTimestamp"):
                raw = await self._client.delete(
                    SECRETS, key, uid=meta["uid"], resource_version=meta["resourceVersion"]
                )
                body = msgspec.json.decode(raw)
                if body.get("kind") != SECRETS.kind:
                    return  # a Status: nothing held it
            body["apiVersion"], body["kind"] = SECRETS.api_version, SECRETS.kind
            set_finalizers(body, remove=(names.SECRET_FINALIZER,))
            await self._client.update(SECRETS, body)
        except NotFound:
            return


def bucket_info(content: SecretContent) -> dict[str, Any]:
    """The JSON under `BucketInfo`; both protocols' keys are always there, one of them null."""
    credentials = content.credentials
    s3, azure = credentials.s3, credentials.azure
    return {
        "metadata": {
            "name": names.bucket_info_name(content.access_uid),
            "creationTimestamp": None,
        },
        "spec": {
            "bucketName": content.bucket_id,
            "authenticationType": content.authentication_type,
            "secretS3": {
                "endpoint": s3.endpoint,
                "region": s3.region,
                "accessKeyID": s3.access_key_id,
                "accessSecretKey": s3.access_secret_key,
            }
            if s3
            else None,
            "secretAzure": {
                "accessToken": azure.access_token,
                "expiryTimeStamp": azure.expiry,
            }
            if azure
            else None,
            "protocols": list(content.protocols),
        },
    }


def _is_ours(body: dict[str, Any], access_uid: str) -> bool:
    encoded = (body.get("data") or {}).get(BUCKET_INFO)
    if not isinstance(encoded, str) or not access_uid:
        return False
    try:
        info = msgspec.json.decode(base64.b64decode(encoded, validate=True))
        return bool(info["metadata"]["name"] == names.bucket_info_name(access_uid))
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError):
        return False


def _body(key: Key, data: dict[str, str], annotations: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.kind,
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "finalizers": [names.SECRET_FINALIZER],
            "annotations": annotations,
        },
        "type": "Opaque",
        "stringData": data,
    }
