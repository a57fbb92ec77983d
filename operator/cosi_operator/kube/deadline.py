"""A deadline on the given clock, so that tests decide when it passes."""

from collections.abc import Awaitable, Callable

import anyio

from cosi_operator.clock import Clock


async def within[T](clock: Clock, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
    """Await `call()`; cancel it and raise TimeoutError when `seconds` pass first.

    What `call` raises comes out as it is, not in a group.
    """
    results: list[T] = []
    try:
        async with anyio.create_task_group() as group:

            async def expire() -> None:
                await clock.sleep(seconds)
                group.cancel_scope.cancel()

            group.start_soon(expire)
            results.append(await call())
            group.cancel_scope.cancel()
    except ExceptionGroup as failed:
        # The timer raises nothing, so the one member is what `call` raised.
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
    if not results:
        raise TimeoutError(f"no end within {seconds:g} s")
    return results[0]
