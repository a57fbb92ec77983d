"""Structured logs on one stream, as JSON or as coloured lines, without credentials.

`app` calls `configure` once. The loggers of libraries (grpc, aiohttp, asyncio) and Python's
warnings are written to the same stream in the same format.

These measures keep credentials out of the log:

- Callers do not log credentials.
- A field with the name of a credential is redacted, at any depth.
- Only plain values are written. Of any other object, only the type is written.
- Every text passes through `scrub`, which reads a bounded part of it. Names and ids that the
  operator logs itself (OWN_FIELDS) are only shortened.

Control characters are escaped.
"""

import enum
import itertools
import json
import logging
from collections.abc import Mapping, Sequence, Set, Sized
from datetime import date
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cosi_operator.scrub import REDACTED, cut, escaped, scrub
from cosi_operator.settings import LogFormat, LogLevel

# Compared in lower case, with only letters and digits.
SECRET_NAMES = frozenset(
    {
        "accesskey",
        "accesskeyid",
        "accesssecretkey",
        "accesstoken",
        "apikey",
        "authorization",
        "bearer",
        "bearertoken",
        "clientkeydata",
        "clientsecret",
        "credential",
        "credentials",
        "passwd",
        "password",
        "privatekey",
        "proxyauthorization",
        "refreshtoken",
        "sastoken",
        "secret",
        "secretaccesskey",
        "secretdata",
        "secretkey",
        "secrets",
        "sessiontoken",
        "stringdata",
        "token",
    }
)
# Values that are nested deeper are replaced, so that a value can't make logging slow or endless.
MAX_DEPTH = 6
# Further items of a list or map are omitted. `keys` of a drain has one item for each worker.
MAX_ITEMS = 100
TEXT_LIMIT = 8192
"""Maximum number of characters of one text; the longest legitimate texts are tracebacks."""
OWN_FIELDS = frozenset(
    {
        *("account_id", "at", "bucket_id", "controller", "driver", "driver_instance", "group"),
        *("holder", "key", "keys"),
        *("kind", "name", "namespace", "path", "resource", "server", "socket", "timestamp", "uid"),
    }
)
"""Fields with names and ids. They are not scrubbed, because a name may look like a key."""
# Fields whose line breaks are not escaped, for tracebacks.
_MANY_LINES = frozenset({"exception", "stack"})


_LEVELS = (LogLevel.DEBUG, LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR)
_level = LogLevel.INFO


def current_level() -> LogLevel:
    """Return the lowest level that is logged."""
    return _level


def set_level(wanted: LogLevel) -> None:
    """Change the level while the process runs, for all loggers."""
    global _level
    _level = wanted


def _drop_below_level(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Processor: drop lines below the level."""
    if method in _LEVELS and _LEVELS.index(LogLevel(method)) < _LEVELS.index(_level):
        raise structlog.DropEvent
    return event


def _is_secret(name: object) -> bool:
    letters = "".join(filter(str.isalnum, str(name).lower()))
    return letters in SECRET_NAMES


def _plain(value: object, name: str = "", depth: int = 0) -> object:
    """Convert the value of the field `name` to plain data without credentials."""
    match value:
        case None | bool() | int() | float():
            return value
        case enum.Enum():
            return _plain(value.value, name, depth)
        case str():
            return _text(value, name)
        case date():
            return value.isoformat()
        case _ if depth >= MAX_DEPTH:
            return "..."
        case Mapping():
            inner = itertools.islice(value.items(), MAX_ITEMS)
            return {_text(str(k)): _field(k, v, depth + 1) for k, v in inner} | _rest(value)
        case tuple() if hasattr(value, "_asdict"):
            return _plain(value._asdict(), name, depth)
        case bytes() | bytearray() | memoryview():
            return "<bytes>"
        case Sequence() | Set():
            items = [_plain(v, name, depth + 1) for v in itertools.islice(value, MAX_ITEMS)]
            return items + list(_rest(value).values())
        case _:
            return f"<{type(value).__name__}>"


def _field(name: object, value: object, depth: int) -> object:
    return REDACTED if _is_secret(name) else _plain(value, str(name), depth)


def _rest(value: Sized) -> dict[str, str]:
    more = len(value) - MAX_ITEMS
    return {"...": f"{more} more"} if more > 0 else {}


def _text(value: str, name: str = "") -> str:
    if name in OWN_FIELDS:
        return cut(escaped(value[: TEXT_LIMIT + 1]), TEXT_LIMIT)
    keep = "\n\t" if name in _MANY_LINES else ""
    return escaped(scrub(value, limit=TEXT_LIMIT), keep=keep)


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Processor: convert all fields to plain data without credentials."""
    return {name: _field(name, value, 0) for name, value in event.items()}


def configure(
    *, level: LogLevel, log_format: LogFormat, stream: TextIO
) -> structlog.typing.FilteringBoundLogger:
    """Write all logs of the process to `stream`, and return the logger.

    The loggers of libraries are written from WARNING on, whatever `level` is, because at DEBUG they
    write the bodies of requests, which contain credentials.
    """
    set_level(level)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    render = _renderer(log_format, stream)
    structlog.configure(
        processors=[_drop_below_level, *shared, render],
        # `_drop_below_level` filters, because the class of a bound logger can't change its level.
        wrapper_class=structlog.make_filtering_bound_logger(LogLevel.DEBUG.value),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    bridge = logging.StreamHandler(stream)
    bridge.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared[:-1]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, render],
            keep_exc_info=False,
        )
    )
    root = logging.getLogger()
    root.handlers = [bridge]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.value.upper()]))
    logging.captureWarnings(capture=True)
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    terminal = stream.isatty()
    if log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not terminal):
        return structlog.processors.JSONRenderer(serializer=_dumps)
    return structlog.dev.ConsoleRenderer(
        colors=terminal, exception_formatter=structlog.dev.plain_traceback
    )


def _dumps(value: Any, **_: object) -> str:
    """Encode JSON on one line, with lone surrogates escaped, because UTF-8 can't encode them."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
