"""The edge of the two processes: exit codes, and why one ends without telling a secret."""

import gc
import importlib.util
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
import structlog
from structlog.testing import capture_logs

from cosi_operator import app
from cosi_operator.classify import PolicyError
from cosi_operator.flags import HelpRequested, UsageError, parse_controller
from cosi_operator.kube.kubeconfig import KubeconfigError
from cosi_operator.kube.lease import LeaseLost
from cosi_operator.log_sink import LogSink
from cosi_operator.settings import ProcessSettings

type Run = Callable[[Any], Coroutine[Any, Any, None]]


@dataclass
class Settled:
    """A command line that was read."""

    settings: ProcessSettings = field(default_factory=lambda: parse_controller([], {}).settings)
    notes: tuple[str, ...] = ("-v=9 is ignored",)


async def well(_: ProcessSettings) -> None:
    """Run and end."""


@pytest.fixture(autouse=True)
def _logging_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "configure", lambda **_: structlog.get_logger())


def run(parse: Callable[[Sequence[str], object], Settled], work: Run = well) -> int:
    try:
        return app._run("cosi-test", parse, work, [], LogSink(2))
    finally:
        gc.unfreeze()


def test_help_is_printed_and_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*_: object) -> NoReturn:
        raise HelpRequested("usage: cosi-test")

    assert run(asked) == 0
    assert capsys.readouterr().out == "usage: cosi-test\n"


def test_a_wrong_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(*_: object) -> NoReturn:
        raise UsageError("no flag --x")

    assert run(wrong) == 2
    assert capsys.readouterr().err == "cosi-test: no flag --x\n"


def test_traces_without_opentelemetry_end_with_2_and_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    traced = parse_controller([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}).settings
    assert run(lambda *_: Settled(settings=traced)) == 2
    assert "pip install 'cosi-operator[tracing]'" in capsys.readouterr().err


def test_while_a_process_runs_no_collection_goes_through_what_was_imported() -> None:
    before, left = len(gc.get_objects()), []

    async def look(_: ProcessSettings) -> None:
        left.append(len(gc.get_objects()))

    run(lambda *_: Settled(), look)
    assert left[0] < before / 10


def test_an_orderly_end_is_logged_and_what_was_ignored_too() -> None:
    with capture_logs() as logs:
        assert run(lambda *_: Settled()) == 0
    assert [(line["event"], line.get("note")) for line in logs] == [
        ("started", None),
        ("flag_ignored", "-v=9 is ignored"),
        ("stopped", None),
    ]


@pytest.mark.parametrize(
    ("failure", "code", "printed", "logged"),
    [
        pytest.param(
            PolicyError("no such code"), 2, "cosi-test: no such code\n", [], id="bad policy -> 2"
        ),
        pytest.param(
            ExceptionGroup("", [ExceptionGroup("", [KubeconfigError("no file")])]),
            2,
            "cosi-test: no file\n",
            [],
            id="bad kubeconfig in groups -> 2",
        ),
        pytest.param(LeaseLost("taken over"), 1, "", ["LeaseLost"], id="Lease lost -> 1"),
        pytest.param(
            ExceptionGroup("", [PolicyError("no such code"), ValueError("hunter2")]),
            1,
            "cosi-test: no such code\n",
            ["ValueError"],
            id="an unexpected error among others -> 1, and its text is not told",
        ),
    ],
)
def test_why_a_process_fails_is_told_without_secrets(
    failure: Exception,
    code: int,
    printed: str,
    logged: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(_: ProcessSettings) -> NoReturn:
        raise failure

    with capture_logs() as logs:
        assert run(lambda *_: Settled(notes=()), fail) == code
    assert capsys.readouterr().err == printed
    assert [line["error"] for line in logs[1:]] == logged
    assert "hunter2" not in str(logs)


def test_a_lost_lease_says_who_has_it() -> None:
    with capture_logs() as logs:
        app._failed("cosi-test", LeaseLost("pod-2 holds it"))
    assert logs[0]["at"] == "pod-2 holds it"


def test_an_error_that_was_never_raised_has_no_place() -> None:
    with capture_logs() as logs:
        app._failed("cosi-test", ValueError("x"))
    assert logs[0]["at"] == ""
