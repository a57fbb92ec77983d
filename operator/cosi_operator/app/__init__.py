"""Entry points of the controller and the sidecar: parse the flags, run, return the exit code."""

import gc
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import structlog
import uvloop

from cosi_operator.classify import PolicyError
from cosi_operator.flags import (
    HelpRequested,
    UsageError,
    package_commit,
    package_version,
    parse_controller,
    parse_sidecar,
)
from cosi_operator.kube.kubeconfig import KubeconfigError
from cosi_operator.kube.lease import LeaseLost
from cosi_operator.log_sink import LogSink, replace_stderr
from cosi_operator.logs import configure
from cosi_operator.runtime import leaves
from cosi_operator.settings import ProcessSettings, changed_settings

EXIT_FAILED = 1
EXIT_USAGE = 2


class Parsed[S: ProcessSettings](Protocol):
    """The result of `parse_sidecar` or `parse_controller`."""

    @property
    def settings(self) -> S: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def sidecar(argv: Sequence[str] | None = None) -> int:
    """Run `cosi-sidecar` (next to a driver) and return its exit code."""
    from cosi_operator.app.sidecar import run_sidecar  # import only what this process needs

    return _main("cosi-sidecar", parse_sidecar, run_sidecar, argv)


def controller(argv: Sequence[str] | None = None) -> int:
    """Run `cosi-controller` (one for the cluster) and return its exit code."""
    from cosi_operator.app.controller import run_controller

    return _main("cosi-controller", parse_controller, run_controller, argv)


def _main[S: ProcessSettings](
    program: str,
    parse: Callable[[Sequence[str], Mapping[str, str]], Parsed[S]],
    run: Callable[[S], Coroutine[Any, Any, None]],
    argv: Sequence[str] | None,
) -> int:
    sink = replace_stderr()
    try:
        return _run(program, parse, run, argv, sink)
    finally:
        sink.drain()


def _run[S: ProcessSettings](
    program: str,
    parse: Callable[[Sequence[str], Mapping[str, str]], Parsed[S]],
    run: Callable[[S], Coroutine[Any, Any, None]],
    argv: Sequence[str] | None,
    sink: LogSink,
) -> int:
    try:
        parsed = parse(sys.argv[1:] if argv is None else argv, os.environ)
    except HelpRequested as asked:
        sys.stdout.write(f"{asked}\n")
        return 0
    except UsageError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return EXIT_USAGE
    settings = parsed.settings
    if settings.trace_endpoint is not None and importlib.util.find_spec("opentelemetry") is None:
        needed = "OpenTelemetry is not installed; run: pip install 'cosi-operator[tracing]'"
        sys.stderr.write(f"{program}: {needed}\n")
        return EXIT_USAGE
    log = configure(level=settings.log_level, log_format=settings.log_format, stream=sys.stderr)
    log = log.bind(program=program)
    sink.on_recovered = lambda lines: log.warning("log_lines_dropped", lines=lines)
    log.info(
        "started",
        version=package_version(),
        commit=package_commit(),
        settings=changed_settings(settings),
    )
    for note in parsed.notes:
        log.info("flag_ignored", note=note)
    gc.freeze()  # collections, also the last one at the exit, skip all that was imported
    try:
        uvloop.run(run(settings))
    except Exception as error:  # noqa: BLE001 - the outermost caller
        return _failed(program, error)
    log.info("stopped")
    return 0


def _failed(program: str, failure: Exception) -> int:
    """Log why the process ends, and return its exit code.

    Of an unexpected error, only the type and the place are logged, because its text may contain
    credentials.
    """
    code = EXIT_USAGE
    for error in leaves(failure):
        if isinstance(error, KubeconfigError | PolicyError):
            sys.stderr.write(f"{program}: {error}\n")
            continue
        code = EXIT_FAILED
        at = str(error) if isinstance(error, LeaseLost) else _place(error)
        structlog.get_logger().error("process_failed", error=type(error).__name__, at=at)
    return code


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
