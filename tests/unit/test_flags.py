"""Command lines of upstream's processes go on working; a word that nobody knows is named."""

import string
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cosi_operator.flags import (
    HelpRequested,
    Machine,
    UsageError,
    package_version,
    parse_controller,
    parse_sidecar,
)
from cosi_operator.flags.table import CONTROLLER, SIDECAR
from cosi_operator.settings import CallTimeouts, LaneScope, LogFormat, LogLevel, SidecarSettings

MACHINE = Machine(read_namespace=lambda: "", hostname=lambda: "pod-1", nonce=lambda: "c0ffee")


def sidecar(*argv: str, **environ: str) -> SidecarSettings:
    return parse_sidecar(argv, environ, MACHINE).settings


def notes(*argv: str, **environ: str) -> tuple[str, ...]:
    return parse_sidecar(argv, environ, MACHINE).notes


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_sidecar(argv, environ, MACHINE)
    return str(caught.value)


def test_no_argument_at_all_gives_the_defaults() -> None:
    assert parse_sidecar((), {}, MACHINE).notes == ()
    assert sidecar() == SidecarSettings(
        kubeconfig=None,
        namespace="default",
        identity="pod-1_c0ffee",
        driver_address="unix:///var/lib/cosi/cosi.sock",
        log_level=LogLevel.INFO,
        log_format=LogFormat.AUTO,
        workers=120,
        leader_elect=True,
        terminal_recheck_s=None,
        deletion_recheck_s=600,
        retry_policy="",
        serialize_access_calls=None,
        retry_policy_file=None,
        retry_overrides=(),
        secret_extra_keys=True,
        timeouts=CallTimeouts(call_s=60, get_info_s=5),
        metrics_address=None,
        health_address=None,
        stop_grace_s=25,
    )


@pytest.mark.parametrize(
    "line",
    [
        "-v 5", "-v=4", "--v=5", "--v 5", "-v5", "-v=100", "--debug -v 100", "-v 2 -v 6",
        "--debug", "-debug", "-g", "--debug=true", "--debug=T", "-g=1", "-gv0", "-gv 0",
        "--zap-log-level=debug", "-zap-log-level 5",
    ],
)  # fmt: skip
def test_spellings_of_debugging(line: str) -> None:
    assert sidecar(*line.split()).log_level is LogLevel.DEBUG


@pytest.mark.parametrize(
    "line",
    [
        "-v=", "--v=", "-v 0", "-v=3", "-v 9 -v 1", "-v -1", "--debug=false", "--debug --debug=f",
        "-g=0", "--debug=", "-zap-log-level=info", "--zap-log-level=0",
    ],
)  # fmt: skip
def test_spellings_of_no_debugging(line: str) -> None:
    assert sidecar(*line.split()).log_level is LogLevel.INFO


def test_zap_can_ask_for_less() -> None:
    for level in LogLevel:
        assert sidecar(f"--zap-log-level={level}").log_level is level
    assert sidecar("--zap-log-level=panic").log_level is LogLevel.ERROR


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--alsologtostderr", "--alsologtostderr"),
        ("-logtostderr", "--logtostderr"),
        ("--logtostderr=false", "--logtostderr"),
        ("--stderrthreshold=INFO", "--stderrthreshold"),
        ("--stderrthreshold 2", "--stderrthreshold"),
        ("--vmodule a=1,b=2", "--vmodule"),
        ("--log_dir=/tmp --log-dir /tmp", "--log-dir"),
        ("--skip_headers --skip-log-headers", "--skip-headers, --skip-log-headers"),
        ("--log_backtrace_at=:0", "--log-backtrace-at"),
        ("--log_file_max_size 1800", "--log-file-max-size"),
        ("--one_output --add_dir_header=true", "--one-output, --add-dir-header"),
        ("-zap-devel -zap-stacktrace-level=error", "--zap-devel, --zap-stacktrace-level"),
        ("--metrics-secure=false --enable-http2", "--metrics-secure, --enable-http2"),
        ("--vmodule=", "--vmodule"),
    ],
)
def test_flags_without_effect_are_accepted_and_named_in_one_note(line: str, names: str) -> None:
    assert notes(*line.split()) == (f"flags without effect here: {names}",)
    assert sidecar(*line.split()) == sidecar()
    assert parse_controller(line.split(), {}, MACHINE).notes == notes(*line.split())


def test_every_flag_without_effect_is_accepted_after_which_the_others_still_count() -> None:
    ignored = [flag for group in SIDECAR.values() for flag in group if flag.ignored]
    argv = [word for flag in ignored for word in [f"--{flag.name}", flag.value] if word]
    assert sidecar(*argv, "-v", "5").log_level is LogLevel.DEBUG


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("--driver-addr=unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("--driver-addr unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("-driver-addr=unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("--driver_addr=unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d=unix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("-dunix:///run/cosi.sock", "unix:///run/cosi.sock"),
        ("-gd /run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d/run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d unix:/run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d unix:////run/cosi.sock", "unix:///run/cosi.sock"),
        ("-d unix:cosi.sock", "unix:cosi.sock"),
        ("-d /a -d /b", "unix:///b"),
        ("-d=", "unix:///var/lib/cosi/cosi.sock"),
    ],
)
def test_spellings_of_the_driver_address(line: str, address: str) -> None:
    assert sidecar(*line.split()).driver_address == address


@pytest.mark.parametrize(
    "address",
    ["tcp://10.0.0.1:9000", "http://x/y", "localhost:9000", "cosi.sock", "unix:", "unix://", "/",
     "unix:///", "unix://run/cosi.sock", "unix-abstract:x", "$(COSI_ENDPOINT)", "unix:///dir/"],
)  # fmt: skip
def test_an_address_that_is_not_a_unix_socket_is_rejected(address: str) -> None:
    text = refusal("--driver-addr", address)
    assert text.startswith(f'--driver-addr is "{address}"')
    assert "unix:///path" in text


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    assert "a path of 201 bytes" in refusal("-d", "/" + "a" * 200)


@pytest.mark.parametrize(
    ("line", "environ", "address"),
    [
        pytest.param(
            "", {"DRIVER_ADDR": "/e"}, "unix:///e", id="DRIVER_ADDR without a flag -> used"
        ),
        pytest.param("", {"COSI_ENDPOINT": "unix:///c"}, "unix:///c", id="v1alpha2's, too"),
        pytest.param(
            "", {"COSI_ENDPOINT": "/c", "DRIVER_ADDR": "/e"}, "unix:///e", id="the own name first"
        ),
        pytest.param("-d /f", {"DRIVER_ADDR": "/e"}, "unix:///f", id="the flag goes first"),
        pytest.param("-d=", {"DRIVER_ADDR": "/e"}, "unix:///e", id="an empty flag does not"),
        pytest.param(
            "", {"DRIVER_ADDR": ""}, "unix:///var/lib/cosi/cosi.sock", id="empty is not set"
        ),
    ],
)
def test_the_environment_and_the_driver_address(
    line: str, environ: dict[str, str], address: str
) -> None:
    assert sidecar(*line.split(), **environ).driver_address == address


def test_a_wrong_address_in_the_environment_is_named_by_its_variable() -> None:
    assert refusal(DRIVER_ADDR="tcp://x").startswith('DRIVER_ADDR in the environment is "tcp://x"')


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({"DEBUG": "true"}, LogLevel.DEBUG),
        ({"DEBUG": "1"}, LogLevel.DEBUG),
        ({"DEBUG": "false"}, LogLevel.INFO),
        ({"V": "5"}, LogLevel.DEBUG),
        ({"V": "1"}, LogLevel.INFO),
        ({"V": ""}, LogLevel.INFO),
        ({"LOGTOSTDERR": "maybe", "WORKERS": "x", "RETRY_POLICY": "?"}, LogLevel.INFO),
    ],
)
def test_the_environment_and_the_level(environ: dict[str, str], level: LogLevel) -> None:
    assert sidecar(**environ).log_level is level
    assert notes(**environ) == ()


def test_a_flag_goes_before_the_environment() -> None:
    assert sidecar("--debug=false", DEBUG="true").log_level is LogLevel.INFO
    assert sidecar("-v=1", V="9").log_level is LogLevel.INFO


def test_a_variable_meant_for_someone_else_is_noted_and_harmless() -> None:
    assert sidecar(DEBUG="express:*", V="all").log_level is LogLevel.INFO
    assert notes(DEBUG="express:*", V="all") == (
        "DEBUG in the environment is not a value of --debug and is ignored",
        "V in the environment is not a value of --v and is ignored",
    )


def test_kubeconfig() -> None:
    assert sidecar("-kubeconfig=/k", KUBECONFIG="/e").kubeconfig == "/k"
    assert sidecar("--kubeconfig=", KUBECONFIG="/e").kubeconfig == "/e"
    assert sidecar("--kubeconfig=").kubeconfig is None


@pytest.mark.parametrize(
    ("environ", "file", "namespace"),
    [
        ({"POD_NAMESPACE": "storage"}, "other", "storage"),
        ({}, "cosi-system\n", "cosi-system"),
        ({"POD_NAMESPACE": " "}, "", "default"),
    ],
)
def test_the_namespace(environ: dict[str, str], file: str, namespace: str) -> None:
    machine = Machine(read_namespace=lambda: file, hostname=lambda: "", nonce=lambda: "n")
    settings = parse_controller((), environ, machine).settings
    assert (settings.namespace, settings.identity) == (namespace, "unknown_n")


def test_two_processes_on_one_host_have_different_identities() -> None:
    first, second = (parse_sidecar((), {}).settings.identity for _ in range(2))
    assert first != second


def test_our_own_flags() -> None:
    settings = sidecar(
        *("--retry-policy", "csi-like", "--retry-policy-file=/etc/p.yaml"),
        "--serialize-access-calls=Bucket",
        *("--retry-override=UNKNOWN=requeue", "--retry-override", "INTERNAL=terminal"),
        *("--terminal-recheck-interval=1h30m", "--deletion-recheck-interval", "0"),
        *(
            "--secret-extra-keys=false",
            "--driver-call-timeout=1.5s",
            "--workers=7",
            "--log-format=JSON",
        ),
        *("--leader-elect=false", "--metrics-bind-address=:8080"),
        *("--health-probe-bind-address=127.0.0.1:8081", "--trace-endpoint=https://otel:4318/in"),
    )
    assert settings == SidecarSettings(
        kubeconfig=None,
        namespace="default",
        identity="pod-1_c0ffee",
        retry_policy="csi-like",
        serialize_access_calls=LaneScope.BUCKET,
        retry_policy_file="/etc/p.yaml",
        retry_overrides=("UNKNOWN=requeue", "INTERNAL=terminal"),
        secret_extra_keys=False,
        terminal_recheck_s=5400,
        deletion_recheck_s=None,
        timeouts=CallTimeouts(call_s=1.5),
        workers=7,
        log_format=LogFormat.JSON,
        leader_elect=False,
        metrics_address=":8080",
        health_address="127.0.0.1:8081",
        trace_endpoint="https://otel:4318/in",
    )


@pytest.mark.parametrize(
    ("line", "log_format"),
    [
        ("--zap-encoder=json", LogFormat.JSON),
        ("-zap-encoder console", LogFormat.HUMAN),
        ("-zap-encoder console --log-format=auto", LogFormat.AUTO),
    ],
)
def test_the_log_format(line: str, log_format: LogFormat) -> None:
    assert sidecar(*line.split()).log_format is log_format


@pytest.mark.parametrize("text", ["0", ""])
def test_an_address_can_be_off(text: str) -> None:
    assert sidecar(f"--metrics-bind-address={text}").metrics_address is None
    assert sidecar(f"--health-probe-bind-address={text}").health_address is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("+2m", 120), ("2000ms", 2),
        ("1m.5s", 60.5), ("1500000µs", 1.5), ("0", None), ("0s", None), ("-0", None), ("", None),
    ],
)  # fmt: skip
def test_durations_as_in_go(text: str, seconds: float | None) -> None:
    assert sidecar(f"--terminal-recheck-interval={text}").terminal_recheck_s == seconds


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(
            "--driver-adr=/a", "unknown flag --driver-adr: did you mean --driver-addr?",
            id="a misspelt flag and the nearest one",
        ),
        pytest.param("-kubeconfg=/a", "did you mean --kubeconfig?", id="also with one dash"),
        pytest.param("-debg", "unknown flag -debg: did you mean --debug?", id="not -d and ebg"),
        pytest.param("--zzz", "unknown flag --zzz (--help", id="nothing is near"),
        pytest.param("--password=hunter2", "unknown flag --password (", id="without its value"),
        pytest.param("-x", "unknown flag -x", id="an unknown short flag"),
        pytest.param("-gx", "unknown flag -gx", id="one among short flags"),
        pytest.param("---debug", "unknown flag ---debug: did you", id="three dashes"),
        pytest.param("--=1", "unknown flag --", id="no name"),
        pytest.param("serve", 'unexpected word "serve"', id="a word"),
        pytest.param("kubeconfig=/a", "did you mean --kubeconfig?", id="a flag without dashes"),
        pytest.param("--", 'unexpected word "--"', id="the end of flags"),
        pytest.param("-", 'unexpected word "-"', id="a lone dash"),
        pytest.param("--leader-elect=maybe", 'is "maybe": write true or false', id="no boolean"),
        pytest.param("-v=high", '--v is "high": write an integer', id="no number"),
        pytest.param("-v 9999999999", "write an integer", id="a number too long"),
        pytest.param("--workers=0", "--workers is 0: give a number from 1", id="no worker"),
        pytest.param("--kubeconfig", "write --kubeconfig=PATH", id="no value at the end"),
        pytest.param("-d --debug", "but --debug follows", id="a flag instead of a value"),
        pytest.param(
            "--terminal-recheck-interval=600", "without a unit: write 600s", id="no unit"
        ),
        pytest.param("--terminal-recheck-interval=-5m", "write a duration", id="negative"),
        pytest.param("--terminal-recheck-interval=10d", "write a duration", id="no unit of Go"),
        pytest.param("--terminal-recheck-interval=10ms", "or 0 to turn it off", id="too often"),
        pytest.param("--driver-call-timeout=0", "--driver-call-timeout is 0", id="no deadline"),
        pytest.param("--log-format=xml", "write json, human or auto", id="no format"),
        pytest.param("--zap-log-level=loud", "debug, info, warning, error or", id="no zap level"),
        pytest.param("--metrics-bind-address=8080", "give host:port or :port", id="no colon"),
        pytest.param("--metrics-bind-address=:70000", "from 1 to 65535", id="no port"),
        pytest.param("--metrics-bind-address=::1:80", "in brackets", id="bare IPv6"),
        pytest.param(
            "--metrics-bind-address=:80 --health-probe-bind-address=:80", "different ports",
            id="one port twice",
        ),
        pytest.param("--trace-endpoint=otel:4317", "write http://host:port", id="no URL"),
        pytest.param(
            "--trace-endpoint=http://me:hunter2@otel:4318", "--trace-endpoint is not the URL",
            id="a password in the URL",
        ),
        pytest.param("--retry-policy=csi", "--retry-policy: ", id="no such policy"),
        pytest.param(
            "--serialize-access-calls=pod", "--serialize-access-calls: ", id="no such scope"
        ),
        pytest.param("--retry-override=X=requeue", "--retry-override: ", id="no such code"),
    ],
)  # fmt: skip
def test_the_error_names_the_invalid_word(line: str, words: str) -> None:
    text = refusal(*line.split())
    assert words in text
    assert "hunter2" not in text


def test_a_word_after_a_switch_is_ignored_as_upstream_does() -> None:
    assert sidecar("--debug", "false", "-v", "1").log_level is LogLevel.DEBUG
    (note,) = notes("--debug", "false")
    assert (
        'the word "false" after --debug has no effect; to set the switch, write --debug=false'
        in note
    )
    assert "unexpected word" in refusal("--debug=true", "false")
    assert "unexpected word" in refusal("--debug", "true", "true")


@pytest.mark.parametrize("spelling", ["--help", "-h", "-help", "-gh"])
def test_help_names_every_flag_in_its_group(spelling: str) -> None:
    with pytest.raises(HelpRequested) as sidecar_help:
        parse_sidecar([spelling], {}, MACHINE)
    text = sidecar_help.value.text
    assert text.startswith("usage: cosi-sidecar [flags]\n\nDriver:\n")
    for title, group in SIDECAR.items():
        assert f"\n{title}:\n" in text
        for flag in group:
            assert f"-{flag.name}" in text
    assert max(map(len, text.splitlines())) <= 80
    with pytest.raises(HelpRequested) as controller_help:
        parse_controller([spelling], {}, MACHINE)
    assert "--driver-addr" not in controller_help.value.text


def test_version() -> None:
    with pytest.raises(HelpRequested) as caught:
        parse_controller(["--version"], {}, MACHINE)
    assert caught.value.text == f"cosi-controller {package_version()}"


def test_the_controller_has_no_driver() -> None:
    settings = parse_controller(["--kubeconfig=/k", "-v=5", "--workers=3"], {}, MACHINE).settings
    assert (settings.kubeconfig, settings.log_level, settings.workers) == ("/k", "debug", 3)
    with pytest.raises(UsageError, match="unknown flag --driver-addr"):
        parse_controller(["--driver-addr=/a"], {}, MACHINE)


FLAG_NAMES = sorted({flag.name for group in SIDECAR.values() for flag in group} | set("dgvh"))
SOME_VALUES = ["", "0", "5", "-1", "true", "10m", "1e9h", "/a", "unix:", ":0", "a:1", "²", "json"]
WORDS = st.one_of(
    st.text(max_size=12),
    st.text(string.printable, max_size=8).map("-".__add__),
    st.sampled_from(SOME_VALUES),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["-", "--"]),
        st.sampled_from(FLAG_NAMES),
        st.sampled_from(["", "=", " "]),
        st.sampled_from(SOME_VALUES) | st.text(max_size=8),
    ),
)
ENVIRON = st.dictionaries(
    st.sampled_from(["DRIVER_ADDR", "KUBECONFIG", "DEBUG", "V", "COSI_ENDPOINT", "POD_NAMESPACE"]),
    st.text(max_size=8) | st.sampled_from(SOME_VALUES),
)


@given(argv=st.lists(WORDS, max_size=5), environ=ENVIRON)
@example(argv=["--terminal-recheck-interval=" + "9" * 400 + "h"], environ={})
@example(argv=["-v", "9" * 5000], environ={})
@example(argv=["-d", "/\udcff"], environ={})
@example(argv=["-d", "/\ud800"], environ={})
@example(argv=["--metrics-bind-address=:²"], environ={})
def test_no_command_line_raises_anything_but_a_usage_error(
    argv: list[str], environ: dict[str, str]
) -> None:
    for parse in (parse_sidecar, parse_controller):
        with suppress(UsageError, HelpRequested):
            assert parse(argv, environ, MACHINE).settings.identity


def test_both_processes_share_what_is_not_the_drivers() -> None:
    groups = (SIDECAR["Driver"], SIDECAR["Secrets"], SIDECAR["Retries"][:3])
    own = {flag.name for group in groups for flag in group}
    names = {flag.name for group in SIDECAR.values() for flag in group}
    assert names - own == {flag.name for group in CONTROLLER.values() for flag in group}


def test_extra_keys_of_secrets_can_be_turned_off_in_the_environment() -> None:
    off = {"COSI_SECRET_EXTRA_KEYS": "false"}
    assert parse_sidecar([], off, MACHINE).settings.secret_extra_keys is False
    flag = "--secret-extra-keys"  # takes precedence
    assert parse_sidecar([flag], off, MACHINE).settings.secret_extra_keys is True


def test_the_environment_can_set_the_retry_policy_and_flags_override_it() -> None:
    told = {
        "COSI_RETRY_POLICY": "csi-like",
        "COSI_RETRY_OVERRIDES": "UNKNOWN=requeue, DriverGrantBucketAccess:INTERNAL=terminal,",
        "COSI_RETRY_POLICY_FILE": "/etc/p.yaml",
    }
    settings = sidecar(**told)
    assert settings.retry_policy == "csi-like"
    assert settings.retry_policy_file == "/etc/p.yaml"
    assert settings.retry_overrides == (
        "UNKNOWN=requeue",
        "DriverGrantBucketAccess:INTERNAL=terminal",
    )
    flags = ("--retry-policy=cosi-spec", "--retry-override=ABORTED=requeue")
    assert sidecar(*flags, **told).retry_policy == "cosi-spec"
    assert sidecar(*flags, **told).retry_overrides == ("ABORTED=requeue",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COSI_SERIALIZE_ACCESS_CALLS", "pod"),
        ("COSI_RETRY_POLICY", "csi"),
        ("COSI_RETRY_OVERRIDES", "UNKNOWN=requeue,X=requeue"),
    ],
)
def test_a_bad_retry_policy_in_the_environment_is_named_by_its_variable(
    variable: str, value: str
) -> None:
    assert refusal(**{variable: value}).startswith(f"{variable} in the environment: ")


def test_recheck_flags_have_no_effect_in_the_controller_and_a_note_names_them() -> None:
    flags = ("--terminal-recheck-interval=1h", "--deletion-recheck-interval=10m")
    parsed = parse_controller(flags, {}, MACHINE)
    assert parsed.settings == parse_controller((), {}, MACHINE).settings
    assert parsed.notes == (
        "flags without effect here: --terminal-recheck-interval, --deletion-recheck-interval",
    )
