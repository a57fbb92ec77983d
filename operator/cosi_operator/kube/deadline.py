"""A deadline on the given clock, so that tests control when it passes."""

from collections.abc import Awaitable, Callable

import anyio

from cosi_operator.clock import Clock, RealClock


async def within[T](clock: Clock, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `call()`, which is cancelled after `seconds`.

    With a RealClock, the deadline is a timer of the event loop: 7 us instead of 44 us for a second
    task. Each chunk of a watch has a deadline.

    Raises:
        TimeoutError: `call` did not end within `seconds`.
        Exception: the error that `call` raised, not in an ExceptionGroup.
    """
    if isinstance(clock, RealClock):
        with anyio.fail_after(seconds):
            return await call()
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
        # The timer raises nothing, so the group contains only the error that `call` raised.
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
    if not results:
        raise TimeoutError(f"not finished within {seconds:g} s")
    return results[0]
