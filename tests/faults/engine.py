"""Runs a scenario without faults, then once for each of its side effects and each fault, and says
what differs.

A side effect is an API write (Leases and dry runs aside) or a driver call that changes something.
It is found again in another run by its label and its number among equal ones of the same case.
Crashes are one at a time; faults that kill nobody hit one case each, so those cases run together.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from tests.faults.bed import CALL_FIELD, NEW_ACCOUNT, NEW_KEYS, REFUSED, FaultBed
from tests.faults.fault import Fault, How
from tests.faults.requests import Asked
from tests.faults.results import RPC, Base, Effect, Result
from tests.faults.scenarios import Grant, RotateAccount, Scenario
from tests.faults.state import Case, Snapshot, difference

from cosi_operator.outcome import Call
from mockdriver.journal import Entry

BASE_RUNS = 3
BASE_QUIET_S = 1.5
# A state counts as settled when nothing was written for so long; what is written later is a fault.
SETTLED_S = 0.3
# At the end of a scenario; a key that was requeued with the first backoff comes back within 1.1 s.
LAST_LOOK_S = 2.5
# After so many cases that failed alone, each of which takes a while, the scenario is given up.
MAX_FAILURES = 3
CONVERGE_S = 25.0
POLL_S = 0.05
EXTRA_CALLS = 1
# A key that no Secret holds is revoked, and another one is granted: the Secret was refused after
# the Grant, or the sidecar was killed between the record of the account and the Secret.
EXTRA_CALLS_KEY_LOST = 2
KEY_LOST = (
    (Grant.name, "sidecar update buckets (no. 2)", How.CRASH_AFTER),
    (Grant.name, "sidecar create secrets", How.CRASH_BEFORE),
    (RotateAccount.name, "sidecar update buckets", How.CRASH_AFTER),
    (RotateAccount.name, "sidecar update secrets", How.CRASH_BEFORE),
    (RotateAccount.name, "sidecar update secrets", How.CRASH_AFTER),
    (RotateAccount.name, "sidecar update buckets (no. 2)", How.CRASH_BEFORE),
)

GRANTS = {NEW_ACCOUNT: "new_account", NEW_KEYS: "new_keys"}

API_CRASHES = (How.CRASH_BEFORE, How.CRASH_AFTER)
RPC_WAYS: dict[str, dict[str, Any]] = {
    "sidecar crashes before": {"hang": True},
    "sidecar crashes after": {"hang": True, "act": True},
    "driver crashes before": {"die": "before"},
    "driver crashes after": {"die": "after"},
    "reply lost": {"hang": True, "act": True},
    "request lost": {"hang": True},
}
# Of a driver that makes one more account each time, nobody learns the id of such an account.
ACTED = ("sidecar crashes after", "driver crashes after", "reply lost")
UNRECORDED = ("sidecar update buckets", How.CRASH_BEFORE.name)
UNANSWERED = ("reply lost", "request lost")  # until the call's deadline
ANSWERS = (
    How.DROP_REQUEST,
    How.DELAY,
    How.CONFLICT,
    How.TOO_MANY,
    How.BROKEN,
    How.AWAY,
    How.UNAUTHORIZED,
    How.FORBIDDEN,
)


_numbers = itertools.count(1)  # of cases, over all engines of a session


class Engine:
    """Runs scenarios on one bed, and keeps the results."""

    def __init__(self, bed: FaultBed) -> None:
        """The bed has to be idle."""
        self.bed = bed
        self.results: list[Result] = []
        self._left = 0  # accounts that the driver may hold in the end

    def run(self, scenario: Scenario, *, crashes: bool = True, answers: bool = False) -> None:
        """All cases of a scenario.

        Args:
            crashes: those with {crash before, crash after, reply lost}.
            answers: those in which the API server answers badly, for each API write.
        """
        base = self._base(scenario)
        together = list(self._together(scenario, base, crashes=crashes, answers=answers))
        alone = list(self._alone(scenario, base)) if crashes else []
        scenario.prepare(self.bed, [case for _, case in together + alone])
        self._until_quiet()
        self._run_together(scenario, base, together)
        # The driver's crashes come last: a new driver process is asked again what the old one
        # refused for good, and that is right.
        for result, case in sorted(alone, key=lambda pair: "driver crashes" in pair[0].way):
            self._run_alone(scenario, base, result, case)
            if sum(bool(result.problems) for result in self.results) >= MAX_FAILURES:
                return
        self._look_back([result for result, _ in together + alone])
        self._clean_up(scenario)

    def run_stale(self, scenario: Scenario, kinds: Sequence[tuple[str, str]]) -> list[Result]:
        """For each role and kind: the role is down while the user acts, and starts from a list of
        that kind as it was when the bed began."""
        base = self._base(scenario)
        pairs = [
            self._result(scenario, f"stale list of {plural}", Effect(f"{role} start", 1))
            for role, plural in kinds
        ]
        scenario.prepare(self.bed, [case for _, case in pairs])
        self._until_quiet()
        for (role, plural), (result, case) in zip(kinds, pairs, strict=True):
            asked = self._calls()
            fault = self.bed.proxy.arm(Fault(How.STALE, _list_of(role, plural)))
            self.bed.kill(role)
            scenario.act(self.bed, case)
            self.bed.revive(role)
            result.met = fault.fired.wait(CONVERGE_S)
            self._until_settled([case], base)
            self._judge([(result, case)], base, asked)
            self.bed.proxy.clear()
        self._look_back([result for result, _ in pairs])
        self._clean_up(scenario)
        return self.results

    # --- without a fault

    def _base(self, scenario: Scenario) -> Base:
        cases = [self._case(scenario) for _ in range(BASE_RUNS)]
        scenario.prepare(self.bed, cases)
        self._until_quiet()
        mark, asked = self.bed.proxy.mark(), self._calls()
        for case in cases:
            scenario.act(self.bed, case)
        self.bed.until(
            "the operator to act",
            lambda: all(self.bed.proxy.effects(since=mark, case=case.name) for case in cases),
        )
        self._until_quiet()
        seen = Snapshot.take(self.bed)
        states = [case.state(seen) for case in cases]
        for state in states[1:]:
            assert difference(states[0], state) == [], "runs without a fault differ"
        runs = [self._effects(case, mark, asked) for case in cases]
        every = [effect for effect in runs[0] if all(effect in run for run in runs)]
        calls = max(len(self._calls_since(case, asked)) for case in cases)
        return Base(states[0], tuple(every), calls)

    def _effects(self, case: Case, mark: int, asked: int) -> list[Effect]:
        labels = [effect.label for effect in self.bed.proxy.effects(since=mark, case=case.name)]
        labels += [f"{RPC}{entry.call}" for entry in self._calls_since(case, asked)]
        counts: Counter[str] = Counter()
        found = []
        for label in labels:
            counts[label] += 1
            found.append(Effect(label, counts[label]))
        return found

    # --- which cases there are

    def _together(
        self, scenario: Scenario, base: Base, *, crashes: bool, answers: bool
    ) -> Iterable[tuple[Result, Case]]:
        for effect in base.effects:
            ways: list[str] = []
            if effect.is_event:
                continue
            if crashes:
                ways += ["reply lost"]
            if effect.call is not None:
                ways += ["request lost"] if answers else []
            elif answers:
                ways += [how.name for how in ANSWERS]
            for way in ways:
                yield self._result(scenario, way, effect)

    def _alone(self, scenario: Scenario, base: Base) -> Iterable[tuple[Result, Case]]:
        for effect in base.effects:
            if effect.call is None:
                ways = [how.name for how in API_CRASHES]
                # An Event that failed is sent again after 5 s, and the next ones wait for it.
                ways += ["reply lost"] if effect.is_event else []
            else:
                ways = [way for way in RPC_WAYS if "crashes" in way]
            for way in ways:
                yield self._result(scenario, way, effect)

    def _result(self, scenario: Scenario, way: str, effect: Effect) -> tuple[Result, Case]:
        case = self._case(scenario)
        if scenario.verdict == NEW_ACCOUNT:
            lost = effect.call is Call.GRANT_ACCESS and way in ACTED
            case.left = int(lost or (str(effect), way) == UNRECORDED)
            self._left += case.left
        return Result(scenario.name, way, effect, case.name), case

    def _case(self, scenario: Scenario) -> Case:
        return Case(f"{scenario.slug}-{next(_numbers)}", refused=scenario.verdict == REFUSED)

    # --- running them

    def _run_together(
        self, scenario: Scenario, base: Base, pairs: Sequence[tuple[Result, Case]]
    ) -> None:
        asked = self._calls()
        faults = [self._arm(scenario, result, case) for result, case in pairs]
        for _, case in pairs:
            scenario.act(self.bed, case)
        self._until_settled([case for _, case in pairs], base)
        self._judge(pairs, base, asked)
        for (result, _), fault in zip(pairs, faults, strict=True):
            result.met = fault is None or fault.hits > 0
        self.bed.proxy.clear()
        self.bed.forget_rules()

    def _run_alone(self, scenario: Scenario, base: Base, result: Result, case: Case) -> None:
        bed, call, asked = self.bed, result.effect.call, self._calls()
        fault = self._arm(scenario, result, case)
        scenario.act(bed, case)
        extra: dict[str, int] = {}
        role = result.effect.label.split()[0]
        if call is None:
            assert fault is not None
            result.met = self._until_met(case, base, fault.over.is_set)
            if result.way == "reply lost":
                self._until_settled([case], base)
                bed.kill(role)
            if result.met:
                bed.revive(role)
        elif "driver" in result.way:
            result.met = self._until_met(case, base, lambda: not bed.driver_lives)
            if result.met:
                bed.revive_driver()
                asked, extra = 0, {case.name: 1}
        else:
            result.met = self._until_met(case, base, lambda: self._hangs(case, asked))
            if result.met:
                bed.kill("sidecar")
                bed.revive("sidecar")
        self._until_settled([case], base)
        self._judge([(result, case)], base, asked, extra)
        bed.proxy.clear()
        bed.forget_rules()

    def _arm(self, scenario: Scenario, result: Result, case: Case) -> Fault | None:
        """Put the fault of a case in force; None when the driver does it."""
        effect, bed = result.effect, self.bed
        if (call := effect.call) is not None:
            rule = RPC_WAYS[result.way]
            if scenario.verdict == REFUSED:  # what a driver refuses it does not do before
                rule = {name: value for name, value in rule.items() if name != "act"}
                rule |= {"die": "before"} if "die" in rule else {}
            if call is Call.GRANT_ACCESS and scenario.verdict in GRANTS:
                rule = {**rule, "reply": GRANTS[scenario.verdict]}
            case.unanswered = int(call is Call.GRANT_ACCESS and result.way in UNANSWERED)
            bed.driver.set_rule(call, match={CALL_FIELD[call]: case.name}, times=1, **rule)
            return None
        role = effect.label.split()[0]
        how = How.LOSE_REPLY if result.way == "reply lost" else How[result.way]

        def wanted(asked: Asked) -> bool:
            return asked.case == case.name and asked.is_effect and asked.label == effect.label

        return bed.proxy.arm(
            Fault(how, wanted, skip=effect.number - 1, seconds=1.0, strike=lambda: bed.kill(role))
        )

    # --- waiting

    def _until_quiet(self) -> None:
        """Wait until the operator has asked for nothing for a while, Leases and watches aside."""
        bed, asked_s = self.bed, time.monotonic()

        def quiet_s() -> float:
            times = [a.at_s for a in bed.proxy.log if a.plural != "leases" and a.verb != "watch"]
            return time.monotonic() - max(asked_s, *times)  # not before it could react

        bed.until("the operator to be quiet", lambda: quiet_s() > BASE_QUIET_S, timeout_s=60)

    def _until_met(self, case: Case, base: Base, happened: Callable[[], bool]) -> bool:
        """Wait for the fault; False when the case ended without it."""
        started_s = time.monotonic()
        while not happened() and time.monotonic() < started_s + CONVERGE_S:
            with suppress(ConnectionError):  # the driver has just died
                quiet_s = min(self._quiet_s([case]), time.monotonic() - started_s)
                if quiet_s > BASE_QUIET_S and self._differs([case], base) == {}:
                    break
            time.sleep(POLL_S)
        return happened()

    def _until_settled(self, cases: Sequence[Case], base: Base) -> None:
        """Wait until all cases are quiet and as without a fault, or time is up; look rarely."""
        deadline = time.monotonic() + CONVERGE_S
        while (asked_s := time.monotonic()) < deadline:
            # Quiet before and after the look, so nothing was written meanwhile.
            if self._is_quiet(cases) and not self._differs(cases, base) and self._is_quiet(cases):
                return
            time.sleep(max(POLL_S, 4 * (time.monotonic() - asked_s)))

    def _is_quiet(self, cases: Sequence[Case]) -> bool:
        return self._quiet_s(cases) > SETTLED_S

    def _quiet_s(self, cases: Sequence[Case]) -> float:
        """For how long nothing was written about them."""
        names = {case.name for case in cases}
        log = reversed(self.bed.proxy.log)
        last_s = next((a.at_s for a in log if a.is_effect and a.case in names), 0.0)
        return time.monotonic() - last_s

    def _differs(self, cases: Sequence[Case], base: Base) -> dict[str, list[str]]:
        seen = Snapshot.take(self.bed)
        found = {case.name: difference(base.state, case.state(seen)) for case in cases}
        return {name: lines for name, lines in found.items() if lines}

    # --- judging

    def _judge(
        self,
        pairs: Sequence[tuple[Result, Case]],
        base: Base,
        asked: int,
        extra: dict[str, int] | None = None,
    ) -> None:
        assert self.bed.leaks() == []
        differences = self._differs([case for _, case in pairs], base)
        for result, case in pairs:
            result.problems += differences.get(case.name, [])
            calls = len(self._calls_since(case, asked)) + (extra or {}).get(case.name, 0)
            if calls > base.calls + _spare(result):
                result.problems.append(f"{calls} driver calls; without the fault {base.calls}")
            result.mark = self.bed.proxy.mark()
        self.results += [result for result, _ in pairs]

    def _look_back(self, results: Sequence[Result]) -> None:
        """What was written about a case after it had settled, other cases' crashes included."""
        time.sleep(LAST_LOOK_S)  # the question itself: what is still written within this time?
        asks_again = any("driver crashes" in r.way for r in results)
        for result in results:
            late = [
                str(asked)
                for asked in self.bed.proxy.effects(since=result.mark, case=result.case)
                # A conflict has written nothing.
                if asked.code != HTTPStatus.CONFLICT
                and not (asked.plural == "events" and result.effect.is_event)
            ]
            if late and not (asks_again and result.scenario == "failing create"):
                result.problems.append(f"written after it had settled: {', '.join(late)}")

    def _clean_up(self, scenario: Scenario) -> None:
        """Delete everything; what then is left is a leak."""
        bed = self.bed
        for plural in ("bucketaccesses", "bucketclaims"):
            left = [item["metadata"]["name"] for item in bed.all_of(plural)]
            bed.delete_all(plural, left)
            bed.until_gone(plural, left, timeout_s=60)
        if scenario.verdict == NEW_ACCOUNT:
            assert len(bed.driver.accounts()) <= self._left
            bed.driver.reset()
            bed.forget_rules()
        if scenario.policy == "Retain":
            names = [b["metadata"]["name"] for b in bed.all_of("buckets")]
            bed.delete_all("buckets", names)
            bed.until_gone("buckets", names)
            assert bed.driver.accounts() == []
            bed.driver.reset()  # what was retained is its owner's to delete
            bed.forget_rules()
        bed.until_empty()

    # --- the driver's calls

    def _calls(self) -> int:
        """A position in the driver's journal."""
        return max((entry.number for entry in self.bed.driver.journal()), default=0)

    def _calls_since(self, case: Case, asked: int) -> list[Entry]:
        return [entry for entry in self.bed.calls_of(case.name) if entry.number > asked]

    def _hangs(self, case: Case, asked: int) -> bool:
        return any(entry.code == "" for entry in self._calls_since(case, asked))


def _spare(result: Result) -> int:
    """How many driver calls more than without the fault are right."""
    case = (result.scenario, str(result.effect), result.way)
    lost = case in [(scenario, effect, how.name) for scenario, effect, how in KEY_LOST]
    return EXTRA_CALLS_KEY_LOST if lost or result.way == How.FORBIDDEN.name else EXTRA_CALLS


def _list_of(role: str, plural: str) -> Callable[[Asked], bool]:
    return lambda asked: (asked.role, asked.verb, asked.plural) == (role, "list", plural)
