"""The Secret of a BucketAccess: complete or absent, and changed only if it is ours.

A Secret belongs to the BucketAccess whose UID the JSON under its key `BucketInfo` names
(`bc-<UID>`), so Secrets created by the Go sidecar are recognised too. A Secret with any other
content, whatever bytes it has, is not ours. Only get, create, update and delete are used, because
most drivers' roles allow neither list nor watch of Secrets.
"""

import base64
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from cosi_operator.api.core import SECRETS
from cosi_operator.api.secret import BUCKET_INFO, CREDENTIAL_FIELDS
from cosi_operator.api.view import Key
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import (
    AlreadyExists,
    ApiSilent,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)
from cosi_operator.kube.objects import Body, set_finalizers
from cosi_operator.kube.rights import missing_right
from cosi_operator.plan import names
from cosi_operator.plan.facts import SecretAllowed, SecretIs
from cosi_operator.sidecar.secret_content import (
    EXTRA_KEYS,
    SecretContent,
    bucket_info,
    secret_data,
)


class Secrets:
    """Reads, creates, updates and deletes the Secrets of accesses."""

    def __init__(self, client: KubeClient, *, extra_keys: bool = True) -> None:
        """`extra_keys`: also write keys for `envFrom`, besides `BucketInfo`."""
        self._client = client
        self._extra_keys = extra_keys

    async def read(self, key: Key, access_uid: str) -> SecretIs:
        """Read the Secret of this name; one GET."""
        try:
            body = await self._get(key)
        except NotFound:
            return SecretIs(exists=False)
        return _describe(body, access_uid)

    async def dry_run(self, key: Key) -> SecretIs | SecretAllowed:
        """Create the Secret as a dry run, which checks quota, admission, permissions and name."""
        keys = {BUCKET_INFO, *(EXTRA_KEYS if self._extra_keys else ())}
        body = _body(key, dict.fromkeys(sorted(keys), ""), {})
        try:
            await self._client.create(SECRETS, body, namespace=key.namespace, dry_run=True)
        except AlreadyExists:
            return SecretIs(exists=True)
        except (Forbidden, Invalid) as error:
            if missing_right(error):  # a missing permission is not specific to this Secret
                raise
            return SecretAllowed(refused=error.message)
        return SecretAllowed()

    async def create(self, key: Key, content: SecretContent) -> SecretIs | SecretAllowed:
        """Create the complete Secret.

        Returns:
            `SecretIs(ours=True)` when it exists; otherwise the state of the Secret that has the
            name, or the API server's reason for a refusal.
        Raises:
            ApiSilent: the Secret may or may not exist; read it before any other step.
        """
        data = secret_data(content, extra_keys=self._extra_keys)
        body = _body(key, data, _annotations(content))
        try:
            await self._client.create(SECRETS, body, namespace=key.namespace)
        except AlreadyExists:
            return await self._found_by_create(key, content)
        except (Forbidden, Invalid) as error:
            return SecretAllowed(refused=error.message)
        return SecretIs(exists=True, ours=True, has_finalizer=True, account=content.account_id)

    async def _found_by_create(self, key: Key, content: SecretContent) -> SecretIs:
        try:
            body = await self._get(key)
        except NotFound:
            return SecretIs(exists=False)
        found = _describe(body, content.access_uid)
        return replace(found, other_keys=found.ours and not _holds(body, content))

    async def holds(self, key: Key, content: SecretContent) -> bool:
        """Whether the Secret is ours and already has exactly these credentials.

        Call this between the Grant and `update`: True means that the driver returned the same keys
        as before. After `update`, the result is always True.
        """
        try:
            body = await self._get(key)
        except NotFound:
            return False
        return _describe(body, content.access_uid).ours and _holds(body, content)

    async def update(
        self, key: Key, content: SecretContent, replacing: str = ""
    ) -> SecretIs | SecretAllowed:
        """Replace the credentials in an existing Secret that is ours, in place; safe to repeat.

        Keys, labels, annotations and finalizers of other writers are kept. A Secret that is missing
        or not ours is not changed.

        Args:
            replacing: the `grant` of the Secret that is to be replaced.
        Returns:
            `SecretIs(ours=True)` when the Secret has the new credentials; otherwise the state of
            the Secret that has the name, or the API server's reason for a refusal.
        Raises:
            Conflict: other writers changed the Secret twice in a row, or its credentials: then
                a new leader has stored newer ones.
            ApiSilent: the Secret may or may not be updated. Repeat the update.
        """
        read: list[Body] = []
        try:
            return await self._update(key, content, replacing, read)
        except Conflict:
            return await self._update(key, content, replacing, read)

    async def _update(
        self, key: Key, content: SecretContent, replacing: str, read: list[Body]
    ) -> SecretIs | SecretAllowed:
        """One attempt. `read` are the copies that earlier attempts read; this one is added."""
        try:
            body = await self._get(key)
            found = _describe(body, content.access_uid)
            if not found.ours:
                return found
            is_changed = any(_info(earlier) != _info(body) for earlier in read)
            if is_changed or found.grant not in (replacing, content.grant):
                raise Conflict(409, "Conflict", f"the credentials in Secret {key} changed")
            read.append(body)
            changed = self._with_content(body, content)
            if changed != body:
                await self._client.update(SECRETS, changed)
        except NotFound:
            return SecretIs(exists=False)
        except (Forbidden, Invalid) as error:
            return SecretAllowed(refused=error.message)
        return _describe(changed, content.access_uid)

    def _with_content(self, body: Body, content: SecretContent) -> Body:
        """A copy of the Secret with these credentials; all content that is not ours is kept."""
        changed: Body = msgspec.json.decode(msgspec.json.encode(body))
        # Remove earlier extra keys even without `extra_keys`: they may hold revoked credentials.
        others = {k: v for k, v in changed["data"].items() if k not in EXTRA_KEYS}
        data = secret_data(content, extra_keys=self._extra_keys)
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        changed["data"] = {**others, **encoded}
        meta = changed["metadata"]
        meta["annotations"] = {
            **_mapping(meta.get("annotations")),
            **_annotations(content),
        }
        # The API server accepts no new finalizer on an object that is being deleted.
        if not meta.get("deletionTimestamp"):
            set_finalizers(changed, add=(names.SECRET_FINALIZER,))
        return changed

    async def release(self, key: Key, live_uids: frozenset[str]) -> None:
        """Remove our finalizer from a Secret that no live access owns; its data is kept.

        Args:
            key: a Secret that an access or a record names; a missing Secret is ignored.
            live_uids: the UIDs of all existing accesses of its namespace, from a new list. A
                Secret whose BucketInfo names one of them keeps the finalizer.
        Raises:
            Conflict: other writers changed the Secret twice in a row.
        """
        try:
            await self._release(key, live_uids)
        except Conflict:
            await self._release(key, live_uids)

    async def _release(self, key: Key, live_uids: frozenset[str]) -> None:
        try:
            body = await self._get(key)
            if not _has_finalizer(body) or _owner(body) in live_uids:
                return
            set_finalizers(body, remove=(names.SECRET_FINALIZER,))
            await self._client.update(SECRETS, body)
        except NotFound:
            return

    async def delete(self, key: Key, access_uid: str) -> SecretIs:
        """Remove our finalizer and delete the Secret, if it is still ours.

        Returns:
            `SecretIs(exists=False)` after the deletion; otherwise the state of the Secret, which
            another writer has changed so that it is not ours any more.
        """
        try:
            body = await self._get(key)
            found = _describe(body, access_uid)
            if not found.ours:
                return found
            meta = body["metadata"]
            if not meta.get("deletionTimestamp"):
                raw = await self._client.delete(
                    SECRETS, key, uid=meta["uid"], resource_version=meta["resourceVersion"]
                )
                body = msgspec.json.decode(raw)
                if body.get("kind") != SECRETS.kind:
                    return SecretIs(exists=False)  # a Status: no finalizer held the Secret
            body["apiVersion"], body["kind"] = SECRETS.api_version, SECRETS.kind
            set_finalizers(body, remove=(names.SECRET_FINALIZER,))
            await self._client.update(SECRETS, body)
        except NotFound:
            pass
        return SecretIs(exists=False)

    async def _get(self, key: Key) -> Body:
        raw = await self._client.get(SECRETS, key)
        try:
            body: Body = _decode_object(raw)
        except _UNREADABLE:  # drop the cause, because its message could quote the Secret
            raise ApiSilent(f"get secrets {key}: the reply is not an object") from None
        body["apiVersion"], body["kind"] = SECRETS.api_version, SECRETS.kind
        return body


class _InfoMeta(Struct):
    name: str


class _Info(Struct):
    """The part of BucketInfo that names the owner; the rest is ignored."""

    metadata: _InfoMeta


# The exceptions that a decoder raises for arbitrary bytes. ValueError includes binascii.Error and
# UnicodeDecodeError. Deeply nested brackets exhaust the stack, even in a field that is skipped.
_UNREADABLE = (ValueError, RecursionError, msgspec.DecodeError)

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_owner = msgspec.json.Decoder(_Info).decode


def _describe(body: Body, access_uid: str) -> SecretIs:
    has_finalizer = _has_finalizer(body)
    if not access_uid or _owner(body) != access_uid:
        return SecretIs(exists=True, has_finalizer=has_finalizer)
    annotations = _mapping(_meta(body).get("annotations"))
    account, grant = (
        text if isinstance(text := annotations.get(name), str) else ""
        for name in (names.ACCOUNT_ID_ANNOTATION, names.GRANT_ANNOTATION)
    )
    return SecretIs(
        exists=True,
        ours=True,
        has_finalizer=has_finalizer,
        immutable=body.get("immutable") is True,
        account=account,
        grant=grant,
    )


def _annotations(content: SecretContent) -> dict[str, str]:
    grant = {names.GRANT_ANNOTATION: content.grant} if content.grant else {}
    return {names.ACCOUNT_ID_ANNOTATION: content.account_id, **grant}


def _owner(body: Body) -> str | None:
    """The UID of the access that BucketInfo names; None if the bytes do not name one."""
    encoded = _info(body)
    if not isinstance(encoded, str):
        return None
    try:
        name = _decode_owner(base64.b64decode(encoded, validate=True)).metadata.name
    except _UNREADABLE:
        return None
    prefix = names.bucket_info_name("")
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def _info(body: Body) -> object:
    return _mapping(body.get("data")).get(BUCKET_INFO)


def _has_finalizer(body: Body) -> bool:
    finalizers = _meta(body).get("finalizers")
    return isinstance(finalizers, list) and names.SECRET_FINALIZER in finalizers


def _meta(body: Body) -> dict[str, Any]:
    return _mapping(body.get("metadata"))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _holds(body: Body, content: SecretContent) -> bool:
    """Whether the stored BucketInfo has these credentials. Never logs or shows either."""
    try:
        info = _decode_object(base64.b64decode(body["data"][BUCKET_INFO]))
    except _UNREADABLE:
        return False
    stored, wanted = _mapping(info.get("spec")), bucket_info(content)["spec"]
    return all(stored.get(name) == wanted[name] for name in CREDENTIAL_FIELDS)


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
