"""What kr8s's own methods raise, as the errors of this package: one place for both flavours.

kr8s makes its synchronous methods from the asynchronous ones with these names.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Self

import kr8s
from kr8s.asyncio.objects import APIObject

from cosi_operator.api.view import is_path_segment
from cosi_operator.kube.errors import error_of
from cosi_operator.scrub import shown_name
from cosi_operator.sdk.client import silence_told


class Refused(APIObject):
    """Raises ApiError (Forbidden and others) and ApiSilent instead of the errors of kr8s."""

    async def async_exists(self, ensure: bool = False) -> bool:
        try:
            self._check()
        except kr8s.NotFoundError:
            if ensure:
                raise
            return False
        return await super().async_exists(ensure=ensure)

    async def async_create(self) -> None:
        _check(self.kind, self.namespace)
        with _told(f"create {self.endpoint}"):
            await super().async_create()

    async def async_delete(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        with _told(f"delete {self.endpoint} {self.name}"):
            await super().async_delete(*args, **kwargs)

    async def async_refresh(self) -> None:
        self._check()
        with _told(f"get {self.endpoint} {self.name}"):
            await super().async_refresh()

    async def async_patch(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        with _told(f"patch {self.endpoint} {self.name}"):
            await super().async_patch(*args, **kwargs)

    async def async_watch(self) -> AsyncGenerator[tuple[str, Self]]:
        self._check()
        async for each in super().async_watch():
            yield each

    @classmethod
    async def async_get(cls, *args: Any, **kwargs: Any) -> Any:
        _check(cls.kind, kwargs.get("namespace"))
        with _told(f"get {cls.endpoint}"):
            return await super().async_get(*args, **kwargs)

    @classmethod
    async def async_list(cls, *args: Any, **kwargs: Any) -> AsyncGenerator[Self | dict[str, Any]]:
        _check(cls.kind, kwargs.get("namespace"))
        with _told(f"list {cls.endpoint}"):
            async for each in super().async_list(*args, **kwargs):
                yield each

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


@contextmanager
def _told(what: str) -> Iterator[None]:
    with silence_told(what):
        try:
            yield
        except kr8s.ServerError as error:
            if error.response is None:
                raise
            status, body = error.response.status_code, error.response.content
            raise error_of(status, body, what=what, confidential=False) from None
