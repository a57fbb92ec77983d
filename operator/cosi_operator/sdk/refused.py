"""What kr8s's own methods raise, as the errors of this package: one place for both flavours.

kr8s makes its synchronous methods from the asynchronous ones with these names.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Self

import anyio
import kr8s
import kr8s.asyncio
import msgspec
from kr8s.asyncio.objects import APIObject

from cosi_operator.api.view import Key, Resource, is_path_segment
from cosi_operator.kube.errors import NotFound
from cosi_operator.scrub import shown_name
from cosi_operator.sdk.answer import REQUEST_TIMEOUT_S, answered, decoded, each_answered
from cosi_operator.sdk.client import Client, Page
from cosi_operator.sdk.read import pages

_OWN_ARGUMENTS = {"namespace", "label_selector", "field_selector", "raw"}


class Refused(APIObject):
    """Raises ApiError (Forbidden and others) and ApiSilent instead of the errors of kr8s."""

    resource: Resource

    async def async_exists(self, ensure: bool = False) -> bool:
        try:
            self._check()
        except kr8s.NotFoundError:
            if ensure:
                raise
            return False
        assert self.api is not None
        try:
            await Client(self.api).get(self.resource, Key(self.namespace or "", self.name))
        except NotFound:
            pass
        else:
            return True
        if ensure:
            raise kr8s.NotFoundError(f"{self.kind} {self.name} does not exist")
        return False

    async def async_create(self) -> None:
        _check(self.kind, self.namespace)
        await answered(f"create {self.endpoint}", super().async_create, ours=False)

    async def async_delete(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        delete = super().async_delete
        await answered(
            f"delete {self.endpoint} {self.name}", lambda: delete(*args, **kwargs), ours=False
        )

    async def async_refresh(self) -> None:
        self._check()
        await answered(f"get {self.endpoint} {self.name}", super().async_refresh, ours=False)

    async def async_patch(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        patch = super().async_patch
        await answered(
            f"patch {self.endpoint} {self.name}", lambda: patch(*args, **kwargs), ours=False
        )

    async def async_watch(self) -> AsyncGenerator[tuple[str, Self]]:
        self._check()
        async for each in super().async_watch():
            yield each

    @classmethod
    async def async_get(cls, *args: Any, **kwargs: Any) -> Any:
        _check(cls.kind, kwargs.get("namespace"))
        get = super().async_get

        async def found() -> Any:
            with anyio.fail_after(REQUEST_TIMEOUT_S + (kwargs.get("timeout") or 0.0)):
                return await get(*args, **kwargs)

        return await answered(f"get {cls.endpoint}", found, ours=False)

    @classmethod
    async def async_list(
        cls, api: kr8s.asyncio.Api | None = None, **kwargs: Any
    ) -> AsyncGenerator[Self | dict[str, Any]]:
        _check(cls.kind, kwargs.get("namespace"))
        what = f"list {cls.endpoint}"
        if api is None or not _OWN_ARGUMENTS.issuperset(kwargs):
            async for each in each_answered(what, super().async_list(api=api, **kwargs)):
                yield each
            return
        client = Client(api)
        namespace = kwargs.get("namespace") or api.namespace
        selectors = {
            name: _selector(kwargs[argument])
            for name, argument in (
                ("labelSelector", "label_selector"),
                ("fieldSelector", "field_selector"),
            )
            if kwargs.get(argument)
        }

        async def list_page(token: str) -> Page:
            return await client.list(
                cls.resource,
                namespace="" if namespace is kr8s.ALL else namespace,
                continue_token=token,
                selectors=selectors,
            )

        async for page in pages(what, list_page):
            for raw in page.items:
                item = decoded(what, raw, _decode_item)
                yield item if kwargs.get("raw") else cls(item, api=api)

    def _check(self) -> None:
        _check(self.kind, self.namespace, self.name)


def _check(kind: str, namespace: str | None, name: str | None = None) -> None:
    """Raise if no object can have these names, because kr8s puts any text into a path.

    With an empty name, kr8s would delete all objects of the namespace.
    """
    for segment, needed in ((namespace, False), (name, name is not None)):
        if (needed or segment) and not is_path_segment(segment or ""):
            raise kr8s.NotFoundError(
                f"{kind} '{shown_name(segment or '')}' does not exist: no object can have this name"
            )


def _selector(wanted: str | Mapping[str, str]) -> str:
    if isinstance(wanted, str):
        return wanted
    return ",".join(f"{name}={value}" for name, value in wanted.items())


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def _decode_item(raw: bytes) -> dict[str, Any]:
    item = _decode_object(raw)
    named = item.get("metadata")
    if (
        not isinstance(named, dict)
        or not isinstance(named.get("name"), str)
        or not isinstance(named.get("namespace", ""), str | None)
    ):
        raise msgspec.ValidationError("an object without a name")
    return item
