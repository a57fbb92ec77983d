"""The five kinds as synchronous classes of kr8s. Import them from `cosi_operator.sdk`."""

import os
from collections.abc import Generator
from typing import Any, Self, cast

import kr8s
from kr8s.objects import APIObject

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import RealClock
from cosi_operator.sdk import kinds, portal, work
from cosi_operator.sdk.connect import default_sources, open_sync_api, resolve
from cosi_operator.sdk.credentials import Credentials
from cosi_operator.sdk.explanation import Explanation
from cosi_operator.sdk.flight import Flight
from cosi_operator.sdk.refused import Refused

type _Key = tuple[str | os.PathLike[str] | None, str | None]

_apis: dict[_Key, kr8s.Api] = {}
_opening: dict[_Key, Flight] = {}
if hasattr(os, "register_at_fork"):  # not on Windows; another thread can be opening one
    os.register_at_fork(after_in_child=_opening.clear)


def api(kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None) -> kr8s.Api:
    """An API object of kr8s for the kubeconfig that kubectl would use.

    The classes use it when they are given no other. kr8s's own objects take it too:
    `kr8s.objects.Pod.get("web", api=cosi_operator.sdk.api())`.

    Args:
        kubeconfig: files, joined as in KUBECONFIG, instead of KUBECONFIG and ~/.kube/config.
        context: instead of the current context.
    Raises:
        KubeconfigError: none was found, or it can't be used. ApiError, ApiSilent: the server
        refused, or did not answer.
    """

    async def open_one() -> None:
        resolved = await resolve(default_sources(kubeconfig, context))
        _apis[kubeconfig, context] = await open_sync_api(resolved)

    if (kubeconfig, context) not in _apis:
        opening = _opening.setdefault((kubeconfig, context), Flight())
        runs = opening.runs
        portal.run(lambda: opening.join(runs, open_one))
    return _apis[kubeconfig, context]


class _Object(Refused, APIObject):
    """Common to the five kinds. Without `api` it uses `cosi_operator.sdk.api()`."""

    resource: Resource

    def __init__(
        self, resource: Any, namespace: str | None = None, api: kr8s.Api | None = None
    ) -> None:
        super().__init__(resource, namespace, api or _default_api())

    @classmethod
    def get(  # type: ignore[override]  # one request instead of a list that is repeated
        cls,
        name: str | None = None,
        namespace: str | None = None,
        api: kr8s.Api | None = None,
        **selectors: Any,
    ) -> Self:
        """Read one object by name, or by selectors as in kr8s.

        Raises:
            kr8s.NotFoundError: it does not exist. ApiError, ApiSilent: the server refused, or did
            not answer.
        """
        used = api or _default_api()
        if name is None:
            return super().get(namespace=namespace, api=used, **selectors)
        key = cls._key(used, name, namespace)
        found = portal.call(used, lambda client: work.read_object(client, cls.resource, key))
        return cls(found, api=used)

    @classmethod
    def list(  # type: ignore[override]  # as kr8s's own synchronous class
        cls, **kwargs: Any
    ) -> Generator[Self | dict[str, Any]]:
        """All objects of this kind, in one namespace or, with `namespace=kr8s.ALL`, in all."""
        kwargs["api"] = kwargs.get("api") or _default_api()
        yield from super().list(**kwargs)

    @classmethod
    def _key(cls, api: kr8s.Api, name: str, namespace: str | None) -> Key:
        return Key((namespace or api.namespace) if cls.namespaced else "", name)

    def _call[T](self, task: portal.Task[T]) -> T:
        used = cast("kr8s.Api", self.api)
        key = self._key(used, self.name, self.namespace)
        return portal.call(used, lambda client: task(client, key))

    def _wait(self, kind: work.Kind, timeout: float | None) -> None:
        self.raw = self._call(
            lambda client, key: work.wait_ready(
                client, kind, key, timeout_s=timeout, clock=RealClock()
            )
        )


_default_api = api  # the classes have parameters of that name


class BucketClaim(kinds.ClaimFields, _Object):
    """A request for a bucket.

    >>> from cosi_operator.sdk import BucketClaim
    >>> claim = BucketClaim.get("photos", namespace="shop")
    >>> claim.wait_ready(timeout=60)
    >>> claim.is_ready
    True
    >>> print(claim.why())
    BucketClaim shop/photos: ready.
    """

    def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the bucket is ready, at most `timeout` seconds; None means no limit.

        Raises:
            StalledError: the operator does not retry; the text says why. NotReadyError: the time
            has passed. kr8s.NotFoundError, ApiError, ApiSilent: as of `get`.
        """
        self._wait(work.CLAIM, timeout)

    def why(self) -> Explanation:
        """What the claim, its Bucket, its accesses and their Secrets wait for."""
        return self._call(work.why_claim)


class BucketAccess(kinds.AccessFields, _Object):
    """A request for keys to a bucket.

    >>> from cosi_operator.sdk import BucketAccess
    >>> access = BucketAccess.get("photos-keys", namespace="shop")
    >>> access.wait_ready(timeout=60)
    >>> keys = access.credentials()
    >>> keys
    Credentials(protocol='S3', bucket='photos-1', endpoint='https://s3.example.com', region='eu-1')
    >>> client = keys.boto3_client()
    >>> client.meta.endpoint_url
    'https://s3.example.com'
    """

    def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the keys are granted, at most `timeout` seconds. Raises: as BucketClaim's."""
        self._wait(work.ACCESS, timeout)

    def why(self) -> Explanation:
        """What the access and all that it needs wait for."""
        return self._call(work.why_access)

    def credentials(self) -> Credentials:
        """Endpoint, region, bucket and keys, from the Secret that the access names.

        Raises:
            CredentialsError: no Secret yet, or it can't be used. ApiError (Forbidden: the right
            to read the Secret is missing), ApiSilent: as of `get`.
        """
        return self._call(work.credentials)


class Bucket(kinds.BucketFields, _Object):
    """A bucket on a backend. Tenants can often not read it."""

    def wait_ready(self, timeout: float | None = work.WAIT_TIMEOUT_S) -> None:
        """Wait until the bucket is ready, at most `timeout` seconds. Raises: as BucketClaim's."""
        self._wait(work.BUCKET, timeout)


class BucketClass(kinds.BucketClassFields, _Object):
    """What a claim can ask for."""


class BucketAccessClass(kinds.AccessClassFields, _Object):
    """What an access can ask for."""
