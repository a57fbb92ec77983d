"""The alerts of the chart fire when they should, on what the processes really expose."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import yaml
from tests.chart.pod import ROOT
from tests.chart.promql import Alert, Query, Scrape, Vector, seconds

from cosi_operator.metrics import Metrics, Result, State
from cosi_operator.outcome import Call, Code, MadeBy

CONTROLLER_LEASE = "leader-lock-cosi-controller-manager"
SIDECAR_LEASE = "vendor-example-com-cosi"
DRIVER = "vendor.example.com"


@dataclass(slots=True)
class Queue:
    """What a queue tells about itself."""

    oldest_age_s: float = 0.0
    depth: int = 0
    processing: int = 0
    delayed: int = 0
    longest_run_s: float = 0.0
    adds: int = 0
    retries: int = 0


@dataclass(slots=True)
class World:
    """A controller and a sidecar, scraped as our monitors do."""

    controller: Metrics = field(
        default_factory=lambda: Metrics(controllers=["bucketclaim"], leases=[CONTROLLER_LEASE])
    )
    sidecar: Metrics = field(
        default_factory=lambda: Metrics(
            controllers=["bucket", "bucketaccess"], leases=[SIDECAR_LEASE]
        )
    )
    queue: Queue = field(default_factory=Queue)
    stalled: dict[tuple[State, str], int] = field(default_factory=dict)
    scrapes: list[Scrape] = field(default_factory=list)
    controller_is_scraped: bool = True

    def __post_init__(self) -> None:
        self.controller.leads(CONTROLLER_LEASE, leading=True)
        self.sidecar.leads(SIDECAR_LEASE, leading=True)
        self.sidecar.driver(DRIVER, up=True)
        self.sidecar.watch_queue("bucket", lambda: self.queue)
        self.sidecar.watch_objects("Bucket", lambda: self.stalled)

    def called(self, call: Call, code: Code, made_by: MadeBy = MadeBy.DRIVER) -> None:
        self.sidecar.called(call, code, made_by, 0.1)

    def pass_minutes(self, minutes: int, each: Callable[["World"], None] = lambda _: None) -> None:
        for _ in range(minutes):
            each(self)
            scrape: dict[str, Vector] = {}
            for process in (
                ("controller", "sidecar") if self.controller_is_scraped else ("sidecar",)
            ):
                metrics = self.controller if process == "controller" else self.sidecar
                target = {"namespace": "system", "pod": f"{process}-0", "cosi_process": process}
                for family in metrics.registry.collect():
                    for sample in family.samples:
                        if sample.name.endswith("_bucket"):  # no alert asks for one
                            continue
                        labels = frozenset((sample.labels | target).items())
                        scrape.setdefault(sample.name, {})[labels] = sample.value
            self.scrapes.append(scrape)

    def firing(self) -> dict[str, list[dict[str, str]]]:
        found = {alert.name: alert.fires(self.scrapes) for alert in alerts()}
        return {name: labels for name, labels in found.items() if labels}


@functools.cache
def alerts() -> list[Alert]:
    text = (ROOT / "charts" / "cosi-operator" / "files" / "alerts.yaml").read_text("utf-8")
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    return [
        Alert(rule["alert"], Query(rule["expr"].strip()), seconds(rule.get("for", "0s")))
        for rule in rules
    ]


def healthy(world: World) -> None:
    """A minute of daily life, with a fault that passes."""
    for call in (Call.CREATE_BUCKET, Call.GRANT_ACCESS):
        world.called(call, Code.INTERNAL)
        world.called(call, Code.OK)
    world.called(Call.GET_INFO, Code.OK)
    world.sidecar.reconciled("bucket", Result.SUCCESS, 0.1)
    world.sidecar.reconciled("bucketaccess", Result.TERMINAL, 0.1)  # an access that waits
    world.sidecar.requested("update", 409)


@pytest.fixture
def world() -> World:
    made = World()
    made.pass_minutes(20, healthy)
    return made


def test_nothing_fires_while_all_is_well(world: World) -> None:
    world.pass_minutes(20, healthy)
    assert world.firing() == {}


def test_a_final_refusal_fires_at_once_and_ends(world: World) -> None:
    world.called(Call.CREATE_BUCKET, Code.INVALID_ARGUMENT)
    world.pass_minutes(1, healthy)
    (labels,) = world.firing()["CosiDriverRefuses"]
    assert (labels["call"], labels["code"]) == ("DriverCreateBucket", "INVALID_ARGUMENT")
    world.pass_minutes(20, healthy)
    assert world.firing() == {}


def test_objects_that_stand_still_fire_until_they_go_on(world: World) -> None:
    world.stalled[State.STALLED, "DriverInvalidArgument"] = 3
    world.pass_minutes(4, healthy)
    assert "CosiObjectsStalled" not in world.firing(), "someone may be repairing it"
    world.pass_minutes(3, healthy)
    (labels,) = world.firing()["CosiObjectsStalled"]
    assert labels["reason"] == "DriverInvalidArgument"
    world.stalled.clear()
    world.pass_minutes(1, healthy)
    assert world.firing() == {}


@pytest.mark.parametrize(
    ("code", "made_by"),
    [(Code.INTERNAL, MadeBy.DRIVER), (Code.DEADLINE_EXCEEDED, MadeBy.DEADLINE)],
)
def test_a_call_that_never_succeeds_fires(world: World, code: Code, made_by: MadeBy) -> None:
    world.pass_minutes(32, lambda w: w.called(Call.DELETE_BUCKET, code, made_by))
    (labels,) = world.firing()["CosiDriverFails"]
    assert labels["call"] == "DriverDeleteBucket"


def test_a_driver_that_is_away_fires_and_one_that_restarts_does_not(world: World) -> None:
    world.sidecar.driver(DRIVER, up=False)
    world.pass_minutes(3)
    assert "CosiDriverAbsent" not in world.firing()
    world.pass_minutes(4)
    (labels,) = world.firing()["CosiDriverAbsent"]
    assert labels["driver"] == DRIVER
    world.sidecar.driver(DRIVER, up=True)
    world.pass_minutes(1)
    assert "CosiDriverAbsent" not in world.firing()


def test_an_old_queue_fires(world: World) -> None:
    world.queue.oldest_age_s = 400.0
    world.pass_minutes(7)
    (labels,) = world.firing()["CosiQueueIsOld"]
    assert labels["name"] == "bucket"


def test_no_leader_fires_for_each_process(world: World) -> None:
    world.controller.leads(CONTROLLER_LEASE, leading=False)
    world.sidecar.leads(SIDECAR_LEASE, leading=False)
    world.pass_minutes(7)
    assert "CosiControllerHasNoLeader" in world.firing()
    (labels,) = world.firing()["CosiSidecarHasNoLeader"]
    assert labels["name"] == SIDECAR_LEASE


def test_a_controller_that_is_gone_altogether_fires_too(world: World) -> None:
    world.controller_is_scraped = False
    world.pass_minutes(7)
    assert "CosiControllerHasNoLeader" in world.firing()


def test_a_forbidden_request_and_an_unexpected_error_fire(world: World) -> None:
    world.sidecar.requested("create", 403)
    world.sidecar.reconciled("bucket", Result.ERROR, 0.1)
    world.pass_minutes(1)
    assert set(world.firing()) == {"CosiForbidden", "CosiUnexpectedError"}


def test_every_alert_of_the_chart_is_tested_here() -> None:
    text = (ROOT / "tests" / "chart" / "test_alerts.py").read_text("utf-8")
    untested = [alert.name for alert in alerts() if f'"{alert.name}"' not in text]
    assert untested == []
