"""What stands between a claim and its Secret: link by link, and the one that fails. Pure.

A tenant may often not read classes and Buckets. What could not be read is a link in the state
UNSEEN and never the culprit: the claim repeats what its Bucket says.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cosi_operator.api.view import (
    Bucket,
    BucketAccess,
    BucketAccessClass,
    BucketClaim,
    BucketClass,
    Condition,
    LastCall,
    is_path_segment,
)
from cosi_operator.conditions import OTHER_ADVICE, advice_on
from cosi_operator.outcome import Reason
from cosi_operator.scrub import shown_name

type Reported = Bucket | BucketAccess | BucketClaim


# How texts name the person who administers the cluster.
ADMINISTRATOR = "cluster administrator"
ADMINISTRATOR_ELSE = ", or ask your cluster administrator"


class State(enum.StrEnum):
    READY = "ready"
    FAILED = "failed"  # Stalled: someone has to change something
    RETRYING = "retrying"
    WAITING = "waiting"  # something else has to happen first
    DELETING = "deleting"
    MISSING = "missing"  # named by another object, and not there
    NOT_YET = "not yet"  # comes later in the chain
    UNSEEN = "not visible"


class Who(enum.StrEnum):
    """Who can do the next step."""

    NOBODY = ""  # nothing has to be done
    OPERATOR = "operator"  # it continues automatically
    YOU = "you"
    ADMINISTRATOR = "cluster administrator"


@dataclass(frozen=True, slots=True)
class Unseen:
    """Stands for an object that could not be read; `why` is the server's reason."""

    why: str


@dataclass(frozen=True, slots=True)
class Link:
    """One object of the chain. `is_cause` marks the link that the others wait for."""

    kind: str
    name: str
    state: State
    reason: str = ""
    message: str = ""
    last_call: LastCall | None = None
    is_cause: bool = False
    then: str = ""  # what happens automatically
    advice: str = ""  # what a person can do
    command: str = ""  # and what to run then, to be copied as it stands
    who: Who = Who.NOBODY  # of a cause: who can do the next step


@dataclass(frozen=True, slots=True)
class SecretFound:
    """A Secret exists; its content was dropped unread."""

    deleting: bool = False


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """A BucketAccess with what it names. None: not there."""

    access: BucketAccess
    access_class: BucketAccessClass | Unseen | None
    secret: SecretFound | Unseen | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was read about one claim. `claim` is None when an access names one not there.

    `unseen_accesses`: why some or all accesses of the claim are not in `accesses`; "" for none.
    """

    claim: BucketClaim | Unseen | None
    claim_name: str
    bucket_class: BucketClass | Unseen | None
    bucket: Bucket | Unseen | None
    accesses: Sequence[AccessFacts]
    unseen_accesses: str = ""


def condition(view: Reported, kind: str) -> Condition | None:
    return next((c for c in view.conditions if c.type == kind), None)


def is_ready(view: Reported) -> bool:
    if isinstance(view, BucketAccess):
        return view.granted and bool(view.account_id)
    return view.ready


def state_of(view: Reported) -> State:
    """The state that the object itself tells. Upstream's half writes no conditions."""
    if view.meta.deleting:
        return State.DELETING
    told = condition(view, "Ready")
    if is_ready(view) and (told is None or told.status == "True"):
        return State.READY
    stalled, reconciling = condition(view, "Stalled"), condition(view, "Reconciling")
    if stalled and stalled.status == "True":
        return State.FAILED
    if reconciling and reconciling.status == "True":
        last = None if isinstance(view, BucketClaim) else view.last_call
        retries = reconciling.reason.startswith("Driver")
        retries = retries or (last is not None and last.outcome == "Requeue")
        return State.RETRYING if retries else State.WAITING
    return State.WAITING


def chain(facts: Facts) -> list[Link]:
    """The links in the order in which they have to become ready, with causes marked."""
    links = [*_claim_links(facts)]
    cause = _first_bad(links)
    links = _mark(links, cause)
    for found in facts.accesses:
        part = _access_links(found, claim_is_ready=cause is None)
        links += _mark(part, None if cause is not None and not _is_own(part) else _first_bad(part))
    if facts.unseen_accesses:
        links.append(Link("BucketAccess", "", State.UNSEEN, message=facts.unseen_accesses))
    return links


def _is_own(part: Sequence[Link]) -> bool:
    """True for an access that would fail even if the claim were ready."""
    return any(link.state in (State.FAILED, State.RETRYING, State.MISSING) for link in part)


def _claim_links(facts: Facts) -> Iterable[Link]:
    claim, bucket = facts.claim, facts.bucket
    if isinstance(claim, BucketClaim) and claim.class_name:
        yield _named("BucketClass", claim.class_name, facts.bucket_class)
    match claim:
        case None if _is_impossible(facts.claim_name.rpartition("/")[2]):
            yield _impossible("BucketClaim", facts.claim_name, "spec.bucketClaimName")
        case None:
            yield Link(
                "BucketClaim",
                facts.claim_name,
                State.MISSING,
                advice="Create this BucketClaim, or correct spec.bucketClaimName of the access.",
            )
        case Unseen(why=why):
            yield Link("BucketClaim", facts.claim_name, State.UNSEEN, message=why)
        case BucketClaim():
            yield _told("BucketClaim", claim, facts.claim_name)
            yield _bucket_link(claim, bucket)


def _is_impossible(name: str) -> bool:
    return bool(name) and not is_path_segment(name)


def _impossible(kind: str, name: str, field: str) -> Link:
    """An object that can't exist: an upstream CRD limits neither length nor characters."""
    namer = "BucketClaim" if kind in ("BucketClass", "Bucket") else "BucketAccess"
    return Link(
        kind,
        name,
        State.MISSING,
        message=f"No {kind} can have this name.",
        advice=f"Create another {namer}, with another name in {field}.",
    )


def _bucket_link(claim: BucketClaim, bucket: Bucket | Unseen | None) -> Link:
    name = claim.bucket_name or claim.existing_bucket_name
    match bucket:
        case Unseen(why=why):
            return Link("Bucket", claim.bucket_name, State.UNSEEN, message=why)
        case None if _is_impossible(name):
            return _impossible("Bucket", name, "spec.existingBucketName")
        case None if name:
            advice = "Ask your cluster administrator where it went. A new claim makes a new bucket."
            return Link("Bucket", name, State.MISSING, advice=advice)
        case None:
            return Link("Bucket", "", State.NOT_YET)
        case Bucket():
            return _told("Bucket", bucket, bucket.meta.name)


def _access_links(found: AccessFacts, *, claim_is_ready: bool) -> Sequence[Link]:
    access = found.access
    told = _told("BucketAccess", access, str(access.meta.key))
    if told.state is State.WAITING and not claim_is_ready and not told.message:
        told = replace(told, state=State.NOT_YET, then="", advice="")
    secret_name = f"{access.meta.namespace}/{access.secret_name}"
    match found.secret:
        case Unseen(why=why):
            secret = Link("Secret", secret_name, State.UNSEEN, message=why)
        case SecretFound(deleting=True) if is_ready(access) and not access.meta.deleting:
            secret = Link(
                "Secret",
                secret_name,
                State.DELETING,
                message="The Secret was deleted, and its finalizer keeps it until the access is"
                " deleted. Until then the keys in it work.",
                advice="To have new keys in a new Secret, remove the finalizer, and then run cosi"
                f" retry {_retry_words('BucketAccess', access)}.",
                command=f"kubectl patch secret {access.secret_name} -n {access.meta.namespace}"
                """ --type=merge -p '{"metadata":{"finalizers":null}}'""",
            )
        case SecretFound() if is_ready(access):
            secret = Link("Secret", secret_name, State.READY)
        case SecretFound():
            message = "A Secret of this name exists already."
            secret = Link("Secret", secret_name, State.NOT_YET, message=message)
        case None if _is_impossible(access.secret_name):
            secret = _impossible("Secret", secret_name, "spec.credentialsSecretName")
        case None if is_ready(access):
            secret = Link(
                "Secret",
                secret_name,
                State.MISSING,
                message="The access was granted, but its Secret is gone.",
                advice="Have new keys made; the old account is revoked.",
                command=f"cosi retry {_retry_words('BucketAccess', access)}",
            )
        case None:
            secret = Link("Secret", secret_name, State.NOT_YET)
    named = _named("BucketAccessClass", access.class_name, found.access_class)
    return [named, told, secret]


def _named(kind: str, name: str, found: BucketClass | BucketAccessClass | Unseen | None) -> Link:
    match found:
        case None if _is_impossible(name):
            return _impossible(kind, name, "spec." + kind[0].lower() + kind[1:] + "Name")
        case None:
            namer = "BucketClaim" if kind == "BucketClass" else "BucketAccess"
            advice = (
                f"Name another {kind} in a new {namer}, or ask your cluster administrator to"
                " create this one."
            )
            return Link(kind, name, State.MISSING, advice=advice)
        case Unseen(why=why):
            return Link(kind, name, State.UNSEEN, message=why)
        case _:
            return Link(kind, name, State.READY, message=f"driver {found.driver_name}")


def _told(kind: str, view: Reported, name: str) -> Link:
    state = state_of(view)
    ready = condition(view, "Ready")
    last = None if isinstance(view, BucketClaim) else view.last_call
    link = Link(kind, name, state, ready.reason if ready else "", last_call=last)
    if state is State.READY:
        return link
    message = ready.message if ready else ""
    then, advice = _prospects(kind, view, state, link.reason, message)
    command = ""
    is_failed = state is State.FAILED and (_is_drivers(link.reason) or _is_repeated(message))
    if is_failed or state is State.RETRYING or _is_refused_deletion(view):
        command = f"cosi retry {_retry_words(kind, view)}"
    return replace(link, message=message, then=then, advice=advice, command=command)


def _is_refused_deletion(view: Reported) -> bool:
    stalled = condition(view, "Stalled")
    return view.meta.deleting and stalled is not None and stalled.status == "True"


def _is_drivers(reason: str) -> bool:
    """Whether the reason is about a driver call, which a retry annotation repeats."""
    return reason.startswith("Driver") and reason != Reason.DRIVER_MISMATCH


def _is_repeated(message: str) -> bool:
    """Whether a final failure says that it is looked at again after a set time."""
    return any(f"{word} every " in message for word in ("again", "repeated"))


def _prospects(
    kind: str, view: Reported, state: State, reason: str, message: str
) -> tuple[str, str]:
    """What happens next, and what to do; neither contradicts the message, or says it twice."""
    known = advice_on(Reason(reason), view) if reason in set(Reason) else ""
    match state:
        case State.FAILED if _is_repeated(message):
            return "looked at again automatically, as often as the message says", known
        case State.FAILED if _is_drivers(reason):
            then = "nothing until the spec, the class, the driver or the retry annotation changes"
            return then, known or OTHER_ADVICE
        case State.FAILED:
            return "nothing until what the message names has changed", known
        case State.RETRYING:
            last = None if isinstance(view, BucketClaim) else view.last_call
            count = f"; attempt {last.attempts} failed at {last.time}" if last else ""
            return f"retried automatically with backoff{count}", ""
        case State.DELETING:
            blockers = ", ".join(view.meta.finalizers) or "none"
            return f"being deleted; finalizers left: {blockers}", known
        case State.WAITING if not view.conditions:
            worker = "the COSI controller" if kind == "BucketClaim" else "the driver's sidecar"
            return f"nothing was written about it yet; that is up to {worker}", (
                f"If it stays so, ask your cluster administrator whether {worker} runs."
            )
        case _:
            return "continues automatically when its condition is met", ""


def _retry_words(kind: str, view: Reported) -> str:
    if isinstance(view, Bucket) and view.claim and view.claim.name:
        return f"{view.claim.name} -n {view.claim.namespace}"
    if kind == "BucketClaim":
        return f"{view.meta.name} -n {view.meta.namespace}"
    where = f" -n {view.meta.namespace}" if view.meta.namespace else ""
    return f"{kind.lower()}/{view.meta.name}{where}"


def _first_bad(links: Sequence[Link]) -> int | None:
    """The link that the rest waits for: a Bucket's own fault before its claim's echo of it."""
    bad = [
        i
        for i, link in enumerate(links)
        if link.state not in (State.READY, State.UNSEEN, State.NOT_YET)
    ]
    if not bad:
        return None
    bucket = next((i for i in bad if links[i].kind == "Bucket"), None)
    if bucket is not None and links[bad[0]].kind == "BucketClaim":
        return bucket
    return bad[0]


def _mark(links: Sequence[Link], cause: int | None) -> list[Link]:
    return [
        replace(link, is_cause=True, who=_who(link)) if i == cause else link
        for i, link in enumerate(links)
    ]


def _who(link: Link) -> Who:
    """Who can do the next step, from the advice and, if there is none, from the message."""
    words = link.advice or link.message
    if ADMINISTRATOR in words:
        # "..., or ask your cluster administrator": the first half is for the reader.
        return Who.YOU if ADMINISTRATOR_ELSE in words else Who.ADMINISTRATOR
    if link.state in (State.RETRYING, State.WAITING, State.DELETING) and not link.advice:
        return Who.OPERATOR
    return Who.YOU


def verdict(links: Sequence[Link]) -> str:
    """One sentence on the whole chain."""
    causes = [link for link in links if link.is_cause]
    if causes:
        names = ", ".join(f"{link.kind} {shown_name(link.name)}" for link in causes)
        return f"not ready, because of {names}"
    if any(link.state is State.NOT_YET for link in links):
        return "not ready yet"
    if any(link.state is State.UNSEEN for link in links):
        return "everything that you may see is ready"
    return "ready"
