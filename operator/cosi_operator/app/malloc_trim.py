"""Returns freed memory to the system.

Requests, TLS and compression take and free blocks of all sizes, and glibc keeps the holes between
those that stay: while claims came and went, the holes grew ten times as fast as what was in use.
Returning them takes a millisecond. The soak of `make faults-full` shows that memory stays flat.
"""

from collections.abc import Callable

from cosi_operator.clock import Clock

EVERY_S = 30.0


async def give_back(clock: Clock, trim: Callable[[], object] | None = None) -> None:
    """Trim the heap every 30 s until cancelled; return at once if the C library can't.

    Args:
        clock: what it waits by.
        trim: what to call; by default glibc's malloc_trim.
    """
    await clock.sleep(EVERY_S)  # ctypes is loaded after the start, which it would slow down
    trim = trim or _glibc_trim()
    while trim is not None:
        trim()
        await clock.sleep(EVERY_S)


def _glibc_trim() -> Callable[[], object] | None:
    try:
        import ctypes

        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return None
    return lambda: malloc_trim(0)
