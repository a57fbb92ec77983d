"""What the commands print, made from what was read. Pure; the time is an argument."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    Key,
    is_path_segment,
)
from cosi_operator.cli.presence import Lease, Presence, presence
from cosi_operator.cli.rollback import Finding
from cosi_operator.cli.text import Layout, age, clean, paragraph, table
from cosi_operator.scrub import cut, shown_name
from cosi_operator.sdk.diagnosis import Link, Reported, State, Who, condition, state_of, verdict

MESSAGE_WIDTH = 70
# Finding the one bad line among many is what colours would do; a word also survives a pipe.
MARK = "<== this"
PIPE = Layout()
WHO = {
    Who.NOBODY: "",
    Who.OPERATOR: "the operator; you can only wait, or retry now",
    Who.YOU: "you",
    Who.ADMINISTRATOR: "your cluster administrator",
}


@dataclass(frozen=True, slots=True)
class NotReady:
    """One row of `cosi status`. `since` is RFC 3339, "" if unknown."""

    namespace: str
    kind: str
    name: str
    state: State
    reason: str
    since: str
    last_call: str
    message: str


@dataclass(frozen=True, slots=True)
class DriverRow:
    """One row of `cosi drivers`. Buckets: how many, and of these how many in which state."""

    driver: str
    classes: tuple[str, ...]
    access_classes: tuple[str, ...]
    buckets: int
    ready: int
    retrying: int
    failed: int
    sidecar: Presence


def not_ready(
    views: Iterable[Reported], without_secret: Sequence[BucketAccess] = ()
) -> list[NotReady]:
    """The objects that are not ready, sorted by namespace, kind and name.

    `without_secret` are accesses that look ready and whose Secret is gone.
    """
    rows = [
        NotReady(
            access.meta.namespace,
            "BucketAccess",
            access.meta.name,
            State.MISSING,
            "SecretMissing",
            "",
            "",
            _lost(access),
        )
        for access in without_secret
    ]
    for view in views:
        state = state_of(view)
        if state is State.READY:
            continue
        told = condition(view, "Ready")
        last = None if isinstance(view, BucketClaim) else view.last_call
        rows.append(
            NotReady(
                view.meta.namespace,
                type(view).__name__,
                view.meta.name,
                state,
                told.reason if told else "",
                told.last_transition_time if told else "",
                f"{last.call} {last.code}" if last and last.outcome != "Success" else "",
                told.message if told else "",
            )
        )
    return sorted(rows, key=lambda row: (row.namespace, row.kind, row.name))


def _lost(access: BucketAccess) -> str:
    name = shown_name(access.secret_name)
    if not is_path_segment(access.secret_name):
        return f"No Secret can have the name {name}. Create another BucketAccess."
    return f"Secret {name} is gone. For new keys: cosi retry bucketaccess/{access.meta.name}"


def status(
    rows: Sequence[NotReady], total: int, where: str, now: datetime, layout: Layout = PIPE
) -> str:
    """The table of `cosi status`, and one line that sums it up."""
    if not total:
        return f"No BucketClaims and no BucketAccesses {where}.\n"
    if not rows:
        return f"All {total} objects {where} are ready.\n"
    header = ("NAMESPACE", "KIND", "NAME", "STATE", "REASON", "SINCE", "LAST CALL", "MESSAGE")
    lines = [
        (
            row.namespace,
            row.kind,
            row.name,
            row.state.value,
            row.reason,
            _age(row.since, now),
            row.last_call,
            _message(row.message, layout),
        )
        for row in rows
    ]
    failed = sum(row.state is State.FAILED for row in rows)
    stuck = f", {failed} of them until someone changes something" if failed else ""
    summary = (
        f"{len(rows)} of {total} objects {where} are not ready{stuck}."
        " More on one: cosi why NAME -n NAMESPACE (bucketaccess/NAME for an access)"
    )
    if layout.width is not None:
        summary = paragraph(summary, "", layout)
    optional = ("LAST CALL", "MESSAGE", "SINCE")
    return f"{table(header, lines, layout, optional=optional)}\n{summary}\n"


def _message(text: str, layout: Layout) -> str:
    """In a pipe the message is cut too, so that a line stays readable; `-o wide` never cuts."""
    if layout.is_wide or layout.width is not None:
        return text
    return cut(clean(text), MESSAGE_WIDTH)


def _age(since: str, now: datetime) -> str:
    try:
        return age((now - datetime.fromisoformat(since)).total_seconds())
    except (ValueError, TypeError):  # absent, unreadable, or without a time zone
        return ""


def why(links: Sequence[Link], subject: str, layout: Layout = PIPE) -> str:
    """The chain as text: a line for each link, and under a cause what is known of it."""
    width = max(len(f"{link.kind} {shown_name(link.name)}".rstrip()) for link in links)
    states = max(len(link.state) for link in links)
    lines = [f"{subject}: {verdict(links)}", ""]
    for link in links:
        what = f"{link.kind} {shown_name(link.name)}".rstrip().ljust(width)
        note = clean(link.reason)
        if link.state in (State.UNSEEN, State.NOT_YET) or link.kind.endswith("Class"):
            note = clean(link.message)
        mark = f"  {MARK}" if link.is_cause else ""
        lines.append(f"  {what}  {link.state.value.ljust(states)}  {note}{mark}".rstrip())
        if link.is_cause:
            lines += _facts(link, layout)
    return "\n".join(lines) + "\n"


def _facts(link: Link, layout: Layout) -> list[str]:
    call = ""
    if last := link.last_call:
        by = "" if last.made_by == "driver" else f" (made by: {last.made_by}, not the driver)"
        call = f"{last.call} -> {last.code}{by}, attempt {last.attempts}, {last.time}"
    facts = {
        "message": link.message,
        "last call": call,
        "next": link.then,
        "who": WHO[link.who],
        "do": link.advice,
    }
    lines = []
    for name, text in facts.items():
        if text:
            first, *rest = paragraph(text, " " * 17, layout).splitlines()
            lines += [f"      {name:<9}  {first.strip()}", *rest]
    if link.command:  # on one line, so that it can be copied
        label = "then run" if link.advice else "at once"
        lines.append(f"      {label:<9}  {clean(link.command)}")
    return lines


def driver_rows(
    classes: Iterable[BucketClass],
    access_classes: Iterable[BucketAccessClass],
    buckets: Iterable[Bucket],
    leases: Sequence[Lease] | None,
    now: datetime,
) -> list[DriverRow]:
    """What names each driver; drivers are compared without regard to case.

    `leases`: all that there are; None when they may not be listed.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    spelling: dict[str, str] = {}

    def under(driver: str) -> dict[str, list[Any]]:
        spelling.setdefault(driver.lower(), driver)
        return found.setdefault(driver.lower(), {"classes": [], "access": [], "states": []})

    for bucket_class in classes:
        under(bucket_class.driver_name)["classes"].append(bucket_class.meta.name)
    for access_class in access_classes:
        under(access_class.driver_name)["access"].append(access_class.meta.name)
    for bucket in buckets:
        under(bucket.driver_name)["states"].append(state_of(bucket))
    return [
        DriverRow(
            spelling[key],
            tuple(sorted(parts["classes"])),
            tuple(sorted(parts["access"])),
            len(parts["states"]),
            parts["states"].count(State.READY),
            parts["states"].count(State.RETRYING),
            parts["states"].count(State.FAILED),
            presence(spelling[key], leases, now),
        )
        for key, parts in sorted(found.items())
    ]


def drivers(rows: Sequence[DriverRow], now: datetime, layout: Layout = PIPE) -> str:
    """The table of `cosi drivers`."""
    if not rows:
        return "No class and no Bucket names a driver.\n"
    header = (
        "DRIVER", "SIDECAR", "SINCE", "VERSION", "POLICY", "BUCKETS", "READY", "RETRYING", "FAILED",
    )  # fmt: skip
    # The names of classes can be many, so a terminal shows them with `-o wide` only.
    has_classes = layout.width is None or layout.is_wide
    lines = [
        (
            row.driver,
            row.sidecar.state,
            _age(row.sidecar.since, now),
            row.sidecar.version,
            row.sidecar.policy,
            *(str(count) for count in (row.buckets, row.ready, row.retrying, row.failed)),
            *((",".join(row.classes), ",".join(row.access_classes)) if has_classes else ()),
        )
        for row in rows
    ]
    names = ("BUCKET CLASSES", "ACCESS CLASSES") if has_classes else ()
    optional = ("BUCKETS", "READY", "RETRYING", "FAILED", "VERSION")
    return table((*header, *names), lines, layout, optional=optional)


def rollback(found: Sequence[Finding], *, is_all: bool, layout: Layout = PIPE) -> str:
    """The table of `cosi rollback-check`, and one line that sums it up."""
    if not found:
        if is_all:
            return "The Go pair v0.2.2 can take over: it would mishandle no object.\n"
        return "Nothing was found, but not all could be read: do not roll back yet.\n"
    lines = [
        (each.kind, str(Key(each.namespace, each.name)), each.why, each.before) for each in found
    ]
    return (
        table(("KIND", "NAME", "WHY", "DO BEFORE"), lines, layout)
        + f"\nThe Go pair v0.2.2 would mishandle {len(found)} objects. Do not roll back before this"
        " list is empty.\n"
    )


def unseen(missed: Mapping[str, str]) -> str:
    """What could not be read, one line each; nothing when all could."""
    return "".join(f"not seen: {what} ({clean(why)})\n" for what, why in missed.items())


def name_of(view: BucketClaim | BucketAccess | Bucket) -> str:
    """How people name it: kind, and namespace/name."""
    return f"{type(view).__name__} {view.meta.key}"
