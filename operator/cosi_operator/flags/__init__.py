"""Converts the command line and the environment to settings. Pure, except for `Machine`.

A flag overrides its environment variable, which overrides the default. An empty value counts as
absent. Every flag of upstream's processes is accepted in every spelling that they accept. A flag
that has no effect here is ignored, and a note for the log names it. An unknown flag is an error.
"""

import os
import re
import secrets
import socket
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from cosi_operator.classify import PolicyError, parse_override, policy_for
from cosi_operator.flags.scan import (
    Flag,
    Given,
    UsageError,
    read_duration_s,
    read_integer,
    read_switch,
    scan,
)
from cosi_operator.flags.table import CONTROLLER, SIDECAR, Groups
from cosi_operator.policy_file import parse_lane_scope
from cosi_operator.settings import (
    DEFAULT_DRIVER_ADDRESS,
    DELETION_RECHECK_S,
    CallTimeouts,
    ControllerSettings,
    LaneScope,
    LogFormat,
    LogLevel,
    SettingError,
    SidecarSettings,
)

__all__ = [
    "HelpRequested",
    "Machine",
    "ParsedController",
    "ParsedSidecar",
    "UsageError",
    "package_commit",
    "package_version",
    "parse_controller",
    "parse_sidecar",
]

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEBUG_VERBOSITY = 4
_ABSOLUTE = re.compile(r"(?!unix://[^/])(?:unix:)?/+([^/].*)(?<!/)", re.DOTALL)
_URL = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
_RELATIVE = re.compile(r"unix:[^/].*(?<!/)", re.DOTALL)


class HelpRequested(Exception):  # noqa: N818 - not an error
    """`--help` or `--version` was given. The caller prints `text` and exits with 0."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _service_account_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Machine:
    """The inputs from the machine. `read_namespace` returns "" if the file does not exist."""

    read_namespace: Callable[[], str] = _service_account_namespace
    hostname: Callable[[], str] = socket.gethostname
    nonce: Callable[[], str] = lambda: secrets.token_hex(4)


HERE = Machine()


@dataclass(frozen=True, slots=True)
class ParsedSidecar:
    """The sidecar's settings. `notes` are lines for the log about ignored input."""

    settings: SidecarSettings
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParsedController:
    """The controller's settings. `notes` are lines for the log about ignored input."""

    settings: ControllerSettings
    notes: tuple[str, ...]


def parse_sidecar(
    argv: Sequence[str], environ: Mapping[str, str], machine: Machine = HERE
) -> ParsedSidecar:
    """Parse the sidecar's settings.

    Args:
        argv: the command line without the program's name.
    Raises:
        UsageError: the command line or the environment is invalid; the caller exits with 2.
        HelpRequested: `--help` or `--version` was given.
    """
    words = _Words("cosi-sidecar", SIDECAR, argv, environ)
    common = words.common(machine)
    call_s = words.duration_s("driver-call-timeout")
    try:
        settings = SidecarSettings(
            **common,
            driver_address=words.driver_address(),
            timeouts=CallTimeouts() if call_s is None else CallTimeouts(call_s=call_s),
            retry_policy=words.retry_policy(),
            retry_policy_file=words.text("retry-policy-file"),
            retry_overrides=words.retry_overrides(),
            terminal_recheck_s=words.recheck_s("terminal-recheck-interval", None),
            deletion_recheck_s=words.recheck_s("deletion-recheck-interval", DELETION_RECHECK_S),
            secret_extra_keys=words.switch("secret-extra-keys") is not False,
            serialize_access_calls=words.lane_scope(),
        )
    except SettingError as error:
        raise UsageError(str(error)) from None
    return ParsedSidecar(settings, words.all_notes())


def parse_controller(
    argv: Sequence[str], environ: Mapping[str, str], machine: Machine = HERE
) -> ParsedController:
    """Parse the controller's settings; arguments and errors as for `parse_sidecar`."""
    words = _Words("cosi-controller", CONTROLLER, argv, environ)
    common = words.common(machine)
    try:
        settings = ControllerSettings(**common)
    except SettingError as error:
        raise UsageError(str(error)) from None
    return ParsedController(settings, words.all_notes())


class _Common(TypedDict, total=False):
    """Arguments of `ProcessSettings`; an absent one has the default that `ProcessSettings` sets."""

    kubeconfig: str | None
    namespace: str
    identity: str
    log_level: LogLevel
    log_format: LogFormat
    workers: int
    leader_elect: bool
    metrics_address: str | None
    health_address: str | None
    trace_endpoint: str | None


class _Words:
    """Reads the values of the flags from one command line and the environment."""

    def __init__(
        self, program: str, groups: Groups, argv: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        self._flags = {flag.name: flag for group in groups.values() for flag in group}
        self._environ = environ
        self._given: Given = scan(argv, list(self._flags.values()))
        self._notes = list(self._given.notes)
        if self.switch("help"):
            raise HelpRequested(_help(program, groups))
        if self.switch("version"):
            raise HelpRequested(f"{program} {package_version()}")

    def all_notes(self) -> tuple[str, ...]:
        ignored = self._given.ignored
        if not ignored:
            return tuple(self._notes)
        return (f"flags without effect here: {', '.join(ignored)}", *self._notes)

    def text(self, name: str) -> str | None:
        return self._sourced(name)[1]

    def switch(self, name: str) -> bool | None:
        source, text = self._sourced(name)
        return None if text is None else read_switch(source, text)

    def duration_s(self, name: str) -> float | None:
        source, text = self._sourced(name)
        return None if text is None else read_duration_s(source, text)

    def common(self, machine: Machine) -> _Common:
        common = _Common(
            kubeconfig=self.text("kubeconfig"),
            namespace=self._environ.get("POD_NAMESPACE", "").strip()
            or machine.read_namespace().strip()
            or "default",
            identity=f"{machine.hostname() or 'unknown'}_{machine.nonce()}",
            log_level=self._log_level(),
            log_format=self._log_format(),
            metrics_address=self._address("metrics-bind-address"),
            health_address=self._address("health-probe-bind-address"),
            trace_endpoint=self._trace_endpoint(),
        )
        if (workers := self.text("workers")) is not None:
            common["workers"] = read_integer("--workers", workers)
        if (elect := self.switch("leader-elect")) is not None:
            common["leader_elect"] = elect
        return common

    def recheck_s(self, name: str, default_s: float | None) -> float | None:
        """Return an interval in seconds; None if the flag is 0, which turns the recheck off."""
        seconds = self.duration_s(name)
        return default_s if seconds is None else seconds or None

    def driver_address(self) -> str:
        """Return the address as a gRPC target: unix:///absolute or unix:relative."""
        source, address = self._sourced("driver-addr")
        if address is None:
            return DEFAULT_DRIVER_ADDRESS
        if absolute := _ABSOLUTE.fullmatch(address):
            return f"unix:///{absolute[1]}"
        if _RELATIVE.fullmatch(address):
            return address
        raise UsageError(
            f'{source} is "{address}": the address of a driver must be a Unix socket,'
            f" so write unix:///path, unix:path or /path, for example {DEFAULT_DRIVER_ADDRESS}"
        )

    def retry_policy(self) -> str:
        source, profile = self._sourced("retry-policy")
        if profile:
            try:
                policy_for("", profile)
            except PolicyError as error:
                raise UsageError(f"{source}: {error}") from None
        return profile or ""

    def retry_overrides(self) -> tuple[str, ...]:
        """Return the values of all flags; without a flag, the comma-separated variable."""
        source, last = self._sourced("retry-override")
        overrides = tuple(self._given.values.get("retry-override", ()))
        if not overrides and last:
            overrides = tuple(text for part in last.split(",") if (text := part.strip()))
        for text in overrides:
            try:
                parse_override(text)
            except PolicyError as error:
                raise UsageError(f"{source}: {error}") from None
        return overrides

    def lane_scope(self) -> LaneScope | None:
        """Return the scope that the flag sets; None if the policy file sets the scope."""
        source, scope = self._sourced("serialize-access-calls")
        try:
            return parse_lane_scope(scope) if scope else None
        except PolicyError as error:
            raise UsageError(f"{source}: {error}") from None

    def _sourced(self, name: str) -> tuple[str, str | None]:
        """Return the source, as error messages name it, and the value; None if it is not set."""
        flag: Flag = self._flags[name]
        if (value := self._given.last(name)) is not None:
            return f"--{name}", value
        for variable in flag.env:
            if value := self._environ.get(variable):
                return f"{variable} in the environment", value
        return f"--{name}", None

    def _log_level(self) -> LogLevel:
        zap = (self.text("zap-log-level") or "info").lower()
        if self._lenient("debug", read_switch) or (
            (self._lenient("v", read_integer) or 0) >= DEBUG_VERBOSITY
        ):
            return LogLevel.DEBUG
        if zap in set(LogLevel):
            return LogLevel(zap)
        if zap == "panic":
            return LogLevel.ERROR
        try:
            return LogLevel.DEBUG if read_integer("", zap) >= 1 else LogLevel.INFO
        except UsageError:
            raise UsageError(
                f'--zap-log-level is "{zap}": write debug, info, warning, error or a number'
            ) from None

    def _lenient[T](self, name: str, read: Callable[[str, str], T]) -> T | None:
        """Read a flag that also has an environment variable that other programs use (DEBUG, V).

        An invalid variable is ignored with a note. An invalid flag raises UsageError.
        """
        source, text = self._sourced(name)
        if text is None:
            return None
        try:
            return read(source, text)
        except UsageError:
            if self._given.last(name) is not None:
                raise
            self._notes.append(f"{source} is not a value of --{name} and is ignored")
            return None

    def _log_format(self) -> LogFormat:
        text = self.text("log-format")
        if text is None:
            encoder = self.text("zap-encoder")
            return {None: LogFormat.AUTO, "console": LogFormat.HUMAN}.get(encoder, LogFormat.JSON)
        try:
            return LogFormat(text.lower())
        except ValueError:
            raise UsageError(f'--log-format is "{text}": write json, human or auto') from None

    def _trace_endpoint(self) -> str | None:
        source, text = self._sourced("trace-endpoint")
        if not text:
            return None
        if not _URL.fullmatch(text):
            raise UsageError(
                f"{source} is not the URL of a collector: write http://host:port, usually with"
                " port 4318; OTLP over gRPC (port 4317) is not supported"
            )
        return text

    def _address(self, name: str) -> str | None:
        text = self.text(name)
        return None if text == "0" else text


def package_version() -> str:
    """Return the version of the installed package; "0.0.0+source" in a source tree."""
    try:
        return version("cosi-operator")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0+source"


def package_commit() -> str:
    """Return the commit that the image was built from; "unknown" outside an image."""
    return os.environ.get("COSI_OPERATOR_COMMIT") or "unknown"


def _help(program: str, groups: Groups) -> str:
    lines = [f"usage: {program} [flags]"]
    for title, flags in groups.items():
        lines += ["", f"{title}:"]
        if all(flag.ignored for flag in flags):
            names = ", ".join(f"--{flag.name}" for flag in flags)
            lines += textwrap.wrap(names, 78, initial_indent="  ", subsequent_indent="  ",
                                   break_on_hyphens=False)  # fmt: skip
            continue
        for flag in flags:
            lines += _help_of(flag)
    lines += ["", "Durations have Go's format: 30s, 10m, 1h30m."]
    return "\n".join(lines)


def _help_of(flag: Flag) -> list[str]:
    short = f"-{flag.short}, " if flag.short else "    "
    spelling = f"-{flag.name}" if len(flag.name) == 1 else f"{short}--{flag.name}"
    env = f" [env {', '.join(flag.env)}]" if flag.env else ""
    return [
        f"  {spelling}{f' {flag.value}' if flag.value else ''}",
        *textwrap.wrap(
            flag.help + env,
            78,
            initial_indent=" " * 10,
            subsequent_indent=" " * 10,
            break_on_hyphens=False,
        ),
    ]
