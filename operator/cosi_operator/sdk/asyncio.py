"""The five kinds as asynchronous classes of kr8s; `cosi_operator.sdk` has the synchronous ones.

```python
from cosi_operator.sdk.asyncio import BucketAccess, BucketClaim

claim = await BucketClaim.get("photos", namespace="shop")
await claim.wait_ready(timeout=60)
access = await BucketAccess.get("photos-keys", namespace="shop")
keys = await access.credentials()
```
"""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import Any, Self

import kr8s
import kr8s.asyncio
from kr8s.asyncio.objects import APIObject

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import RealClock
from cosi_operator.sdk import kinds, work
from cosi_operator.sdk.api_objects import AsyncApi
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import default_sources, open_api, resolve
from cosi_operator.sdk.credentials import Credentials
from cosi_operator.sdk.explanation import Explanation
from cosi_operator.sdk.flight import Flight
from cosi_operator.sdk.refused import Refused

__all__ = ["Bucket", "BucketAccess", "BucketAccessClass", "BucketClaim", "BucketClass", "api"]

type _Key = tuple[str | os.PathLike[str] | None, str | None]


class _Opened:
    """The API objects of one event loop, and what closes them when the loop ends."""

    def __init__(self) -> None:
        self.opening: dict[_Key, Flight] = {}
        self.apis: dict[_Key, AsyncApi] = {}
        self.end: AsyncGenerator[None] | None = None

    async def closed_at_the_end(self) -> AsyncGenerator[None]:
        """Wait in `yield`: a loop finalizes the generators that run in it before it ends."""
        try:
            yield
        finally:
            _opened.pop(asyncio.get_running_loop(), None)
            for each in self.apis.values():
                await each.close()


_opened: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Opened] = weakref.WeakKeyDictionary()


async def api(
    kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None
) -> kr8s.asyncio.Api:
    """An API object for the kubeconfig that kubectl would use; one for each event loop.

    Args:
        kubeconfig: files, joined as in KUBECONFIG, instead of KUBECONFIG and ~/.kube/config.
        context: instead of the current context.
    Raises:
        KubeconfigError: none was found, or it can't be used. ApiError, ApiSilent: the server
        refused, or did not answer.
    """
    for ended in [loop for loop in _opened if loop.is_closed()]:  # by hand, without a finalization
        _opened.pop(ended, None)
    mine = _opened.setdefault(asyncio.get_running_loop(), _Opened())
    if mine.end is None:
        mine.end = mine.closed_at_the_end()
        await anext(mine.end)

    async def open_mine() -> None:
        resolved = await resolve(default_sources(kubeconfig, context))
        mine.apis[kubeconfig, context] = await open_api(resolved)

    if (kubeconfig, context) not in mine.apis:  # two at once would run a plugin twice
        opening = mine.opening.setdefault((kubeconfig, context), Flight())
        await opening.join(opening.runs, open_mine)
    return mine.apis[kubeconfig, context]


class _Object(Refused, APIObject):
    """Common to the five kinds. Without `api` it uses `cosi_operator.sdk.asyncio.api()`."""

    resource: Resource

    def __init__(
        self, resource: Any, namespace: str | None = None, api: kr8s.asyncio.Api | None = None
    ) -> None:
        super().__init__(resource, namespace, api)
        self._has_api = api is not None

    def __await__(self) -> Generator[Any, None, Self]:
        async def connected() -> Self:
            if not self._has_api:
                self.api = await api()
                self._has_api = True
            return self

        return connected().__await__()

    @classmethod
    async def get(  # type: ignore[override]  # one request instead of a list that is repeated
        cls,
        name: str | None = None,
        namespace: str | None = None,
        api: kr8s.asyncio.Api | None = None,
        **selectors: Any,
    ) -> Self:
        """Read one object by name, or by selectors as in kr8s.

        Raises:
            kr8s.NotFoundError: it does not exist. ApiError, ApiSilent: the server refused, or did
            not answer.
        """
        used = api or await _default_api()
        if name is None:
            return await super().get(namespace=namespace, api=used, **selectors)
        key = cls._key(used, name, namespace)
        return cls(await work.read_object(Client(used), cls.resource, key), api=used)

    @classmethod
    async def list(cls, **kwargs: Any) -> AsyncGenerator[Self | dict[str, Any]]:
        """All objects of this kind, in one namespace or, with `namespace=kr8s.ALL`, in all."""
        kwargs.setdefault("api", None)
        kwargs["api"] = kwargs["api"] or await _default_api()
        async for each in super().list(**kwargs):
            yield each

    @classmethod
    def _key(cls, api: kr8s.asyncio.Api, name: str, namespace: str | None) -> Key:
        return Key((namespace or api.namespace) if cls.namespaced else "", name)

    async def _client(self) -> tuple[Client, Key]:
        await self
        return Client(self.api), self._key(self.api, self.name, self.namespace)

    async def _wait(self, kind: work.Kind, timeout: float | None) -> None:
        client, key = await self._client()
        self.raw = await work.wait_ready(client, kind, key, timeout_s=timeout, clock=RealClock())


_default_api = api  # the classes have parameters of that name


class BucketClaim(kinds.ClaimFields, _Object):
    """A request for a bucket."""

    async def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the bucket is ready, at most `timeout` seconds; None means no limit.

        Raises:
            StalledError: the operator does not retry; the text says why. NotReadyError: the time
            has passed. kr8s.NotFoundError, ApiError, ApiSilent: as of `get`.
        """
        await self._wait(work.CLAIM, timeout)

    async def why(self) -> Explanation:
        """What the claim, its Bucket, its accesses and their Secrets wait for."""
        return await work.why_claim(*await self._client())


class BucketAccess(kinds.AccessFields, _Object):
    """A request for keys to a bucket."""

    async def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the keys are granted, at most `timeout` seconds. Raises: as BucketClaim's."""
        await self._wait(work.ACCESS, timeout)

    async def why(self) -> Explanation:
        """What the access and all that it needs wait for."""
        return await work.why_access(*await self._client())

    async def credentials(self) -> Credentials:
        """Endpoint, region, bucket and keys, from the Secret that the access names.

        Raises:
            CredentialsError: no Secret yet, or it can't be used. ApiError (Forbidden: the right
            to read the Secret is missing), ApiSilent: as of `get`.
        """
        return await work.credentials(*await self._client())


class Bucket(kinds.BucketFields, _Object):
    """A bucket on a backend. Tenants can often not read it."""

    async def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the bucket is ready, at most `timeout` seconds. Raises: as BucketClaim's."""
        await self._wait(work.BUCKET, timeout)


class BucketClass(kinds.BucketClassFields, _Object):
    """What a claim can ask for."""


class BucketAccessClass(kinds.AccessClassFields, _Object):
    """What an access can ask for."""
