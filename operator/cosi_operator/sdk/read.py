"""Reads objects and what they name, with the rights of the caller.

A 403 is not an error here: what may not be read is noted in `missed` and shown as not visible.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio
import msgspec
from msgspec import Struct

from cosi_operator.api import core
from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
    decode_bucket_class,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Bucket, BucketAccess, BucketClaim, Key, Resource
from cosi_operator.kube.errors import ApiSilent, Forbidden, NotFound
from cosi_operator.plan.names import bucket_name
from cosi_operator.sdk.answer import unreadable
from cosi_operator.sdk.diagnosis import AccessFacts, Facts, SecretFound, Unseen, is_ready
from cosi_operator.sdk.errors import NotInstalledError

# A command that a person waits for reads so many Secrets at most, one after the other.
SECRETS_READ = 200
UNSEEN_NAMED = 10  # more Secrets than these are counted
LIST_TIMEOUT_S = 300.0  # all pages of one list; each page has the time of one request
NO_RIGHT = "you have no right to read it"
NO_RIGHT_TO_LIST = "you have no right to list them"


class _Meta(Struct, rename="camel", frozen=True):
    deletion_timestamp: str | None = None


class _Secret(Struct, frozen=True):
    """No field for the data, so that it is never decoded."""

    metadata: _Meta = _Meta()


_decode_secret = msgspec.json.Decoder(_Secret).decode


def _secret_found(raw: bytes) -> SecretFound:
    return SecretFound(deleting=_decode_secret(raw).metadata.deletion_timestamp is not None)


class Page(Protocol):
    """One page of a list. `continue_token` is "" on the last page."""

    @property
    def items(self) -> tuple[bytes, ...]: ...

    @property
    def continue_token(self) -> str: ...


class Verbs(Protocol):
    """What a reader asks: the SDK's `Client`, or the operator's own `KubeClient`."""

    @property
    def default_namespace(self) -> str: ...

    async def get(self, resource: Resource, key: Key) -> bytes: ...

    async def list(
        self, resource: Resource, *, namespace: str = "", continue_token: str = ""
    ) -> Page: ...

    async def update(self, resource: Resource, body: Mapping[str, Any]) -> bytes: ...


def _unreadable(resource: Resource) -> str:
    return f"one of the {resource.plural}"


async def pages(what: str, list_page: Callable[[str], Awaitable[Page]]) -> AsyncGenerator[Page]:
    """Every page of the list that `what` names; `list_page` takes the continue token.

    Raises:
        ApiSilent: the list has no end, or takes too long, without the time that the caller needs
        between two pages.
    """
    spent_s = 0.0
    token, seen = "", {""}
    while True:
        started_at = anyio.current_time()
        page = await list_page(token)
        spent_s += anyio.current_time() - started_at
        yield page
        token = page.continue_token
        if not token:
            return
        if token in seen:
            raise ApiSilent(f"{what}: the server sends the same pages again and again")
        if spent_s > LIST_TIMEOUT_S:
            raise ApiSilent(f"{what}: the list is not complete within {LIST_TIMEOUT_S:g} s")
        seen.add(token)


@dataclass(slots=True)
class Reader:
    """One command's view of the cluster. `missed`: what could not be read, and why."""

    client: Verbs
    missed: dict[str, str] = field(default_factory=dict)
    has_unreadable: bool = False  # an object that exists, but its readiness is unknown

    async def all[T](
        self, resource: Resource, decode: Callable[[bytes], T], *, namespace: str = ""
    ) -> list[T] | None:
        """Every object of a kind, page by page; None when that is forbidden.

        Raises:
            NotInstalledError: the kind is not served. ApiError, ApiSilent: as of the client.
        """
        found: list[T] = []

        async def list_page(token: str) -> Page:
            return await self.client.list(resource, namespace=namespace, continue_token=token)

        try:
            async for page in pages(f"list {resource.plural}", list_page):
                for raw in page.items:
                    try:
                        found.append(decode(raw))
                    except (ValueError, RecursionError) as error:
                        self.missed[_unreadable(resource)] = unreadable(error)
                        self.has_unreadable = True
        except Forbidden:
            where = f" in {namespace}" if namespace else ""
            self.missed[f"{resource.plural}{where}"] = NO_RIGHT_TO_LIST
            return None
        except NotFound:
            raise NotInstalledError(
                f"this cluster does not serve {resource.plural}.{resource.group}:"
                " install COSI's CRDs first"
            ) from None
        return found

    async def one[T](
        self, resource: Resource, decode: Callable[[bytes], T], key: Key
    ) -> T | Unseen | None:
        """One object; None when it is not there.

        Raises:
            ApiError, ApiSilent: as of the client, but for 403 and 404.
        """
        try:
            return decode(await self.client.get(resource, key))
        except Forbidden:
            self.missed[f"{resource.kind} {key}"] = NO_RIGHT
            return Unseen(NO_RIGHT)
        except NotFound:
            return None
        except (ValueError, RecursionError) as error:
            self.missed[f"{resource.kind} {key}"] = unreadable(error)
            self.has_unreadable = True
            return Unseen(unreadable(error))

    async def has_secret(self, key: Key) -> bool:
        """Whether the Secret exists, or can't be seen; its content is dropped unread."""
        return await self.one(core.SECRETS, lambda _raw: True, key) is not None

    async def secret(self, key: Key) -> SecretFound | Unseen | None:
        """Whether the Secret is there, and is being deleted."""
        return await self.one(core.SECRETS, _secret_found, key)

    async def lost_secrets(self, accesses: Sequence[BucketAccess]) -> list[BucketAccess]:
        """The granted accesses whose Secret is gone: their keys work, but no Secret holds them."""
        granted = [access for access in accesses if is_ready(access) and access.secret_name]
        if len(granted) > SECRETS_READ:
            self.missed["secrets"] = (
                f"more than {SECRETS_READ} accesses name one; ask for one namespace, or run"
                " cosi why"
            )
            return []
        before = set(self.missed)
        lost = [
            access
            for access in granted
            if not await self.has_secret(Key(access.meta.namespace, access.secret_name))
        ]
        unseen = self.missed.keys() - before
        if len(unseen) > UNSEEN_NAMED:
            self.missed = {what: why for what, why in self.missed.items() if what not in unseen}
            self.missed["secrets"] = f"you have no right to read {len(unseen)} of them"
        return lost

    async def claim_facts(self, key: Key) -> Facts:
        """A claim, its Bucket, and all accesses of its namespace that name it."""
        found = await self.all(BUCKET_ACCESSES, decode_bucket_access, namespace=key.namespace)
        facts = await self._facts(key, [a for a in found or () if a.claim_name == key.name])
        unseen = self.missed.get(_unreadable(BUCKET_ACCESSES), "")
        return replace(facts, unseen_accesses=NO_RIGHT_TO_LIST if found is None else unseen)

    async def access_facts(self, access: BucketAccess) -> Facts:
        """One access with the claim that it names."""
        return await self._facts(access.claim_key, [access])

    async def _facts(self, key: Key, accesses: list[BucketAccess]) -> Facts:
        claim = await self.one(BUCKET_CLAIMS, decode_bucket_claim, key)
        bucket: Bucket | Unseen | None = None
        bucket_class = None
        if isinstance(claim, BucketClaim):
            own = claim.bucket_name or claim.existing_bucket_name or bucket_name(claim.meta.uid)
            bucket = await self.one(BUCKETS, decode_bucket, Key("", own))
            bucket_class = await self.one(
                BUCKET_CLASSES,
                decode_bucket_class,
                Key("", claim.class_name),
            )
        return Facts(
            claim,
            str(key),
            bucket_class,
            bucket,
            [await self._access(access) for access in accesses],
        )

    async def _access(self, access: BucketAccess) -> AccessFacts:
        access_class = await self.one(
            BUCKET_ACCESS_CLASSES,
            decode_bucket_access_class,
            Key("", access.class_name),
        )
        key = Key(access.meta.namespace, access.secret_name)
        return AccessFacts(access, access_class, await self.secret(key))
