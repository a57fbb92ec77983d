"""Settings that can't work can't be made."""

from typing import Any

import pytest

from cosi_operator.settings import (
    Backoff,
    CallTimeouts,
    ControllerSettings,
    LeaseDurations,
    SettingError,
    SidecarSettings,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("record", "arguments", "words"),
    [
        pytest.param(Backoff, {"base_s": 0}, "above 0", id="a backoff without a pause -> refused"),
        pytest.param(
            Backoff, {"base_s": NAN}, "above 0", id="a backoff that is no number -> refused"
        ),
        pytest.param(Backoff, {"cap_s": 0.5}, "1.0 s", id="a cap below the base -> refused"),
        pytest.param(Backoff, {"cap_s": INF}, "cap", id="an infinite cap -> refused"),
        pytest.param(Backoff, {"jitter": 1.5}, "0 to 1", id="a jitter above 1 -> refused"),
        pytest.param(
            LeaseDurations,
            {"lease_s": 10},
            "longer than the renew deadline",
            id="lease durations in the wrong order -> refused",
        ),
        pytest.param(
            LeaseDurations, {"renew_deadline_s": 2.4}, "1.2 times", id="more than one attempt"
        ),
        pytest.param(LeaseDurations, {"retry_period_s": 0}, "above 0", id="attempts are apart"),
        pytest.param(
            CallTimeouts, {"call_s": 0}, "--driver-call-timeout", id="a call has a deadline"
        ),
        pytest.param(CallTimeouts, {"get_info_s": -1}, "DriverGetInfo", id="also the first one"),
    ],
)
def test_a_record_refuses_what_can_not_work(
    record: type, arguments: dict[str, float], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        record(**arguments)


COMMON: dict[str, Any] = {"kubeconfig": None, "namespace": "n", "identity": "i"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"namespace": ""}, "POD_NAMESPACE"),
        ({"identity": ""}, "identity"),
        ({"workers": 0}, "--workers is 0"),
        ({"workers": 1001}, "from 1 to 1000"),
        ({"metrics_address": "localhost"}, "--metrics-bind-address"),
        ({"health_address": ":0"}, "--health-probe-bind-address"),
        ({"health_address": "a:b:80"}, "in brackets"),
        ({"stop_grace_s": -1}, "negative"),
    ],
)
@pytest.mark.parametrize("record", [SidecarSettings, ControllerSettings])
def test_both_processes_refuse(record: type, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        record(**COMMON | arguments)


@pytest.mark.parametrize("address", ["", "unix:", "tcp://a", "unix:/", "unix:a\0b"])
def test_the_driver_is_reached_by_a_unix_socket(address: str) -> None:
    with pytest.raises(SettingError, match="--driver-addr"):
        SidecarSettings(**COMMON, driver_address=address)


def test_a_socket_path_has_107_bytes_at_most() -> None:
    longest = "unix:///" + "a" * 106
    assert SidecarSettings(**COMMON, driver_address=longest).driver_address == longest
    with pytest.raises(SettingError, match="108 bytes"):
        SidecarSettings(**COMMON, driver_address="unix:///" + "a" * 107)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"terminal_recheck_s": 0.5}, "--terminal-recheck-interval is 0.5 s"),
        ({"deletion_recheck_s": INF}, "--deletion-recheck-interval"),
    ],
)
def test_a_recheck_interval_out_of_range_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        SidecarSettings(**COMMON, **arguments)


def test_ipv6_addresses_must_have_brackets() -> None:
    assert ControllerSettings(**COMMON, metrics_address="[::]:80").metrics_address == "[::]:80"
