"""The settings of both processes, as frozen dataclasses that reject invalid values.

Durations in seconds end in `_s`. None means "off". Every instance is valid, because the
constructors raise `SettingError`, whose message names the flag and a valid value. This module does
not read flags, files or the environment; `flags` does.
"""

import enum
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass

DEFAULT_DRIVER_ADDRESS = "unix:///var/lib/cosi/cosi.sock"
# The kernel limits a socket's path to 108 bytes, including the terminating zero (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
DELETION_RECHECK_S = 600.0
# A shorter interval would be a retry loop without backoff.
MIN_RECHECK_S = 1.0
# 2**63 times any base is above any cap and does not overflow a float.
MAX_DOUBLINGS = 63


class SettingError(ValueError):
    """An invalid setting; the message names the flag, the reason and a valid value."""


class LogFormat(enum.StrEnum):
    AUTO = "auto"  # HUMAN on a terminal, otherwise JSON
    JSON = "json"
    HUMAN = "human"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LaneScope(enum.StrEnum):
    """Which DriverGrantBucketAccess and DriverRevokeBucketAccess calls run one at a time."""

    DRIVER = "driver"  # all calls to the driver
    BUCKET = "bucket"  # the calls for one bucket
    NONE = "none"


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise SettingError(message)


def _is_duration(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause after consecutive failures: `base_s`, doubled per failure, at most `cap_s`.

    A random part of up to `jitter` (a fraction) is added, so that keys that failed together are not
    retried together. This class computes all growing pauses of the project.
    """

    base_s: float = 1.0
    cap_s: float = 300.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        _check(_is_duration(self.base_s), f"backoff base is {self.base_s} s: it has to be above 0")
        _check(
            _is_duration(self.cap_s) and self.cap_s >= self.base_s,
            f"backoff cap is {self.cap_s} s: it has to be {self.base_s} s (the base) or more",
        )
        _check(0 <= self.jitter <= 1, f"backoff jitter is {self.jitter}: give 0 to 1")

    def pause_s(self, failures: int, draw: float = 0.0) -> float:
        """Return the pause in seconds after this number of consecutive failures.

        The pause is at least the doubled base and at most the cap. The doubling stops below the
        cap, so that the jitter still applies. Otherwise keys that have all reached the cap would be
        retried together.

        Args:
            failures: the number of consecutive failures, at least 1.
            draw: a random number from 0 to 1.
        """
        doubled = self.base_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
        jittered = min(doubled, self.cap_s / (1 + self.jitter)) * (1 + self.jitter * draw)
        return min(jittered, self.cap_s)


@dataclass(frozen=True, slots=True)
class LeaseDurations:
    """The durations of leader election.

    A lease expires after `lease_s`. Its holder stops leading `renew_deadline_s` after the last
    renewal, and tries to renew every `retry_period_s`. Two processes never lead together, because
    the holder stops before the lease expires. The constructor checks that the holder has more than
    one attempt until then.
    Source: the checks of client-go's leaderelection package.
    """

    lease_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        _check(
            _is_duration(self.retry_period_s),
            f"lease retry period is {self.retry_period_s} s: it has to be above 0",
        )
        _check(
            self.renew_deadline_s > self.retry_period_s * 1.2,
            f"lease renew deadline is {self.renew_deadline_s} s: it has to be more than"
            f" 1.2 times the retry period of {self.retry_period_s} s",
        )
        _check(
            math.isfinite(self.lease_s) and self.lease_s > self.renew_deadline_s,
            f"lease duration is {self.lease_s} s: it has to be longer than the renew deadline"
            f" of {self.renew_deadline_s} s",
        )


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """The time limits for one attempt of a driver call, including the connection, in seconds."""

    call_s: float = 60.0
    get_info_s: float = 5.0

    def __post_init__(self) -> None:
        _check(
            _is_duration(self.call_s),
            f"--driver-call-timeout is {self.call_s} s: a call needs a deadline above 0,"
            " for instance 60s",
        )
        _check(
            _is_duration(self.get_info_s),
            f"the deadline of DriverGetInfo is {self.get_info_s} s: it has to be above 0",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """The settings that the sidecar and the controller share.

    - `kubeconfig`: the path; None means the Pod's own service account.
    - `namespace`: the namespace of the Lease.
    - `identity`: the Lease's holder, unique to the process.
    - `metrics_address`, `health_address`: `host:port`; an empty host means all interfaces.
    - `trace_endpoint`: the URL of a collector; None means no traces.
    - `stop_grace_s`: the time between SIGTERM and the exit.
    """

    kubeconfig: str | None
    namespace: str
    identity: str
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    workers: int = 120
    backoff: Backoff = field(default_factory=Backoff)
    lease: LeaseDurations = field(default_factory=LeaseDurations)
    leader_elect: bool = True
    metrics_address: str | None = None
    health_address: str | None = None
    trace_endpoint: str | None = None
    stop_grace_s: float = 25.0

    def __post_init__(self) -> None:
        _check(bool(self.namespace), "the namespace is empty: set POD_NAMESPACE")
        _check(bool(self.identity), "the identity of this process is empty")
        _check(
            1 <= self.workers <= 1000,
            f"--workers is {self.workers}: give a number from 1 to 1000",
        )
        _check_address("--metrics-bind-address", self.metrics_address)
        _check_address("--health-probe-bind-address", self.health_address)
        _check(
            self.metrics_address is None or self.metrics_address != self.health_address,
            f"--metrics-bind-address and --health-probe-bind-address are both"
            f" {self.metrics_address}: give them different ports",
        )
        _check(
            math.isfinite(self.stop_grace_s) and self.stop_grace_s >= 0,
            f"the grace period is {self.stop_grace_s} s: it must not be negative",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings(ProcessSettings):
    """All settings of the sidecar.

    - `driver_address`: the gRPC target of a Unix socket.
    - `retry_policy`: a built-in profile; "" means that the policy file or the default applies.
    - `retry_overrides`: the overrides of the flags. `policy_file.resolve_policy` combines them with
      the file.
    - `secret_extra_keys`: whether Secrets get keys for `envFrom` besides `BucketInfo`.
    - `serialize_access_calls`: None means that the file or the default applies
      (`policy_file.resolve_lane_scope`).
    """

    driver_address: str = DEFAULT_DRIVER_ADDRESS
    timeouts: CallTimeouts = field(default_factory=CallTimeouts)
    retry_policy: str = ""
    retry_policy_file: str | None = None
    retry_overrides: tuple[str, ...] = ()
    terminal_recheck_s: float | None = None
    deletion_recheck_s: float | None = DELETION_RECHECK_S
    secret_extra_keys: bool = True
    serialize_access_calls: LaneScope | None = None

    def __post_init__(self) -> None:
        ProcessSettings.__post_init__(self)  # super() does not work in a slotted dataclass
        _check_recheck("--terminal-recheck-interval", self.terminal_recheck_s)
        _check_recheck("--deletion-recheck-interval", self.deletion_recheck_s)
        scheme, _, path = self.driver_address.partition(":")
        path = path.removeprefix("//")
        _check(
            scheme == "unix" and path not in ("", "/"),
            f'--driver-addr is "{self.driver_address}": give a Unix socket,'
            f" for instance {DEFAULT_DRIVER_ADDRESS}",
        )
        size_bytes = len(path.encode(errors="replace"))  # an invalid byte counts as one
        _check(
            size_bytes <= MAX_SOCKET_PATH_BYTES and "\0" not in path,
            f"--driver-addr has a path of {size_bytes} bytes: the path of a socket may have at most"
            f" {MAX_SOCKET_PATH_BYTES} bytes and no zero byte, so move the socket",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings(ProcessSettings):
    """All settings of the controller, which calls no driver."""


def changed_settings(settings: ProcessSettings) -> dict[str, object]:
    """Return the settings that differ from their default or have none, by name."""
    changed: dict[str, object] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.default_factory is not MISSING:
            default: object = each.default_factory()
        else:
            default = each.default
        if value != default:
            is_group = is_dataclass(value) and not isinstance(value, type)
            changed[each.name] = asdict(value) if is_group else value
    return changed


def _check_recheck(flag: str, seconds: float | None) -> None:
    _check(
        seconds is None or (math.isfinite(seconds) and seconds >= MIN_RECHECK_S),
        f"{flag} is {seconds} s: give {MIN_RECHECK_S:g}s or more, or 0 to turn it off",
    )


def _check_address(flag: str, address: str | None) -> None:
    if address is None:
        return
    host, colon, port = address.rpartition(":")
    _check(
        bool(colon) and port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535,
        f'{flag} is "{address}": give host:port or :port with a port from 1 to 65535,'
        " or 0 to turn it off",
    )
    _check(
        ":" not in host or (host.startswith("[") and host.endswith("]")),
        f'{flag} is "{address}": write an IPv6 address in brackets, for instance [::]:8080',
    )
