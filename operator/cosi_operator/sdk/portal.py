"""Runs the SDK's coroutines for programs without an event loop, on one thread in the background.

A new event loop for each call would open a new connection for each call. The thread is a daemon, so
it does not keep a program alive.
"""

import os
import threading
import weakref
from collections.abc import Awaitable, Callable

import anyio
import anyio.from_thread
import kr8s
import kr8s.asyncio

from cosi_operator.api.view import Key
from cosi_operator.sdk.api_objects import AsyncApi
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import open_api, same_server
from cosi_operator.sdk.flight import Flight

type Work[T] = Callable[[Client], Awaitable[T]]
type Task[T] = Callable[[Client, Key], Awaitable[T]]


class _Loop:
    """The event loop in its thread, and one asynchronous API object for each synchronous one."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._portal: anyio.from_thread.BlockingPortal
        self._apis: weakref.WeakKeyDictionary[kr8s.Api, AsyncApi] = weakref.WeakKeyDictionary()
        self._opening = weakref.WeakKeyDictionary[kr8s.Api, Flight]()
        threading.Thread(target=anyio.run, args=[self._serve], name="cosi-sdk", daemon=True).start()
        self._started.wait()

    async def _serve(self) -> None:
        async with anyio.from_thread.BlockingPortal() as self._portal:
            self._started.set()
            await self._portal.sleep_until_stopped()

    def run[T](self, work: Callable[[], Awaitable[T]]) -> T:
        return self._portal.call(work)

    async def with_client[T](self, api: kr8s.Api, work: Work[T]) -> T:
        async def open_mine() -> None:
            self._apis[api] = await open_api(same_server(api))

        if api not in self._apis:
            opening = self._opening.setdefault(api, Flight())
            await opening.join(opening.runs, open_mine)
        return await work(Client(self._apis[api]))


_lock = threading.Lock()
_loops: list[_Loop] = []  # one, made at the first call


def _forget_the_loop() -> None:
    """A forked process has no thread for it, so it makes one at its first call."""
    global _lock
    _lock = threading.Lock()  # another thread can have held the old one
    _loops.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_the_loop)


def run[T](work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in the background thread, and return its result."""
    return _loop().run(work)


def call[T](api: kr8s.Api, work: Work[T]) -> T:
    """Run `work` with a client that has the server and the credentials of `api`."""
    loop = _loop()
    return loop.run(lambda: loop.with_client(api, work))


def _loop() -> _Loop:
    with _lock:
        if not _loops:
            _loops.append(_Loop())
        return _loops[0]
