"""`cosi policy`: the table in force, and what one status of one call leads to. Pure."""

from dataclasses import dataclass

from cosi_operator.classify import CONSERVATIVE, Policy, Verdict, classify
from cosi_operator.cli.text import paragraph, table
from cosi_operator.cli.words import CALLS
from cosi_operator.outcome import Call, Code, DriverStatus, Effect, MadeBy
from cosi_operator.settings import LaneScope

NEXT = {
    Verdict.REQUEUE: "Retried automatically, each time after a longer wait (Reconciling).",
    Verdict.TERMINAL: (
        "Not tried again (Stalled) until the object's spec changes, the driver restarts, someone"
        " asks for it (cosi retry NAME), or a recheck interval, if one is set, has passed."
    ),
    Verdict.SUCCESS: "Counts as done: what the call is for is already so.",
}
LEFT_OPEN = {
    Effect.NONE: "The driver refused before it did anything: nothing has to be cleaned up.",
    Effect.MAYBE: "The backend may still have changed; deletion cleans up.",
}


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What the policy says of one status: the verdict and which rule gave it."""

    call: Call
    code: Code
    verdict: Verdict
    rule: str
    reason: str
    effect: Effect
    why: str


def rule(policy: Policy, call: Call, code: Code) -> str:
    """In words, which part of the policy decides; the order is that of `Policy.verdict`."""
    for override in reversed(policy.overrides):
        if override.code is code and override.call in (None, call):
            return f"override {override.spelled()}"
    if call in CONSERVATIVE[code].at:
        return f"every profile, for {call}"
    return f"profile {policy.profile}"


def policy_decision(policy: Policy, call: Call, code: Code) -> PolicyDecision:
    """Ask the policy about one status that the driver itself sent."""
    judged = classify(policy, DriverStatus(call, code, MadeBy.DRIVER))
    return PolicyDecision(
        call,
        code,
        judged.verdict,
        rule(policy, call, code),
        judged.reason.value,
        judged.effect,
        CONSERVATIVE[code].why,
    )


def policy_decisions(policy: Policy) -> list[PolicyDecision]:
    """The whole table: each code, for each call."""
    return [policy_decision(policy, call, code) for code in CONSERVATIVE for call in CALLS]


AT_ONCE = {
    LaneScope.DRIVER: "one at a time",
    LaneScope.BUCKET: "one at a time for each bucket",
    LaneScope.NONE: "all at once",
}


def show(policy: Policy, driver: str, lane_scope: LaneScope) -> str:
    """The table as text; a verdict that an override changed carries a star."""
    rows = []
    starred = False
    for code, row in CONSERVATIVE.items():
        cells = []
        for call in CALLS:
            star = "*" if rule(policy, call, code).startswith("override") else ""
            starred = starred or bool(star)
            cells.append(f"{policy.verdict(call, code)}{star}")
        rows.append((code.name, *cells, row.reason.value))
    lead = f"Profile {policy.profile}, for {driver or 'a driver that no override names'}.\n\n"
    header = ("CODE", "CREATE", "DELETE", "GRANT", "REVOKE", "REASON")
    note = ""
    if starred:
        words = "\n".join(f"  {override.spelled()}" for override in policy.overrides)
        note = f"\n* by an override (the last that fits wins):\n{words}\n"
    end = (
        "\nOnly for statuses that the driver itself sends. A lost connection and our own deadline"
        "\nare always tried again; an OK whose reply can't be used is always final.\n"
        f"\nGrant and Revoke calls run {AT_ONCE[lane_scope]}"
        f" (serializeAccessCalls: {lane_scope}).\n"
    )
    return lead + table(header, rows) + note + end


def explain(ruled: PolicyDecision) -> str:
    """What will happen after one status, and why."""
    facts = [
        ("verdict", f"{ruled.verdict}, by {ruled.rule}"),
        ("then", NEXT[ruled.verdict]),
    ]
    if ruled.verdict is not Verdict.SUCCESS:
        facts += [("reason", ruled.reason), ("backend", LEFT_OPEN[ruled.effect])]
    facts += [("why", ruled.why)]
    lines = [f"{ruled.call} answers {ruled.code.name}:"]
    for name, text in facts:
        first, *rest = paragraph(text, " " * 12).splitlines()
        lines += [f"  {name:<8}  {first.strip()}", *rest]
    return "\n".join(lines) + "\n"
