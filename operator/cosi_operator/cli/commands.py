"""Each command: read, ask the pure parts, and return what to print with the exit code."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cosi_operator.api import v1alpha1
from cosi_operator.api.core import LEASES
from cosi_operator.api.view import BucketAccess, Key, Resource
from cosi_operator.cli import policy as table_of_policy
from cosi_operator.cli import render, rollback
from cosi_operator.cli.arguments import Command
from cosi_operator.cli.diagnosis import Reported, SecretFound, Unseen, chain, is_ready
from cosi_operator.cli.presence import decode_lease
from cosi_operator.cli.read import Reader
from cosi_operator.clock import Clock
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import Conflict, NotFound
from cosi_operator.plan.names import RETRY_ANNOTATION, ROTATE_ANNOTATION
from cosi_operator.policy_file import resolve_lane_scope, resolve_policy

EXIT_OK, EXIT_NOT_READY, EXIT_FAILED = 0, 1, 2
RETRY_TRIES = 5  # each conflict means that someone else has just written


class CommandError(Exception):
    """It could not be done; the text says what and, where it is known, what to do."""


@dataclass(frozen=True, slots=True)
class Printed:
    """`out` for standard output, `note` for standard error."""

    out: str
    code: int = EXIT_OK
    note: str = ""


def run_policy(command: Command) -> Printed:
    """`cosi policy show` and `explain`: no cluster is asked.

    Raises:
        PolicyError: as of `resolve_policy`. CommandError: the file can't be read.
    """
    text = None
    if command.file:
        try:
            text = Path(command.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{command.file}: {error}") from None
    policy = resolve_policy(
        command.driver,
        profile=command.profile,
        overrides=command.overrides,
        file_text=text,
        file_name=command.file or "",
    )
    lane_scope = resolve_lane_scope(command.driver, file_text=text, file_name=command.file or "")
    if command.call is not None and command.code is not None:
        ruled = table_of_policy.policy_decision(policy, command.call, command.code)
        return Printed(render.to_json(_spelled(ruled)) if command.json else _explained(ruled))
    if command.json:
        return Printed(
            render.to_json(
                {
                    "driver": command.driver,
                    "profile": policy.profile,
                    "serializeAccessCalls": lane_scope,
                    "overrides": [o.spelled() for o in policy.overrides],
                    "verdicts": [_spelled(r) for r in table_of_policy.policy_decisions(policy)],
                }
            )
        )
    return Printed(table_of_policy.show(policy, command.driver, lane_scope))


_explained = table_of_policy.explain


def _spelled(ruled: table_of_policy.PolicyDecision) -> dict[str, Any]:
    """With the code's name instead of its number."""
    fields: dict[str, Any] = msgspec.to_builtins(ruled)
    return {**fields, "code": ruled.code.name}


async def status(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi status`. Raises NotInstalledError, ApiError, ApiSilent, as all below."""
    if command.all_namespaces:
        namespace, where = "", "in all namespaces"
    else:
        namespace = command.namespace or reader.client.default_namespace
        where = f"in namespace {namespace}"
    claims = await reader.all(
        v1alpha1.BUCKET_CLAIMS, v1alpha1.decode_bucket_claim, namespace=namespace
    )
    accesses = await reader.all(
        v1alpha1.BUCKET_ACCESSES, v1alpha1.decode_bucket_access, namespace=namespace
    )
    views: list[Reported] = [*(claims or ()), *(accesses or ())]
    if claims is None and accesses is None:
        hint = "; ask for one namespace: -n NAMESPACE" if command.all_namespaces else ""
        raise CommandError(f"you may list neither claims nor accesses {where}{hint}")
    if command.all_namespaces:
        # A claim's row says all of its Bucket; only Buckets without a claim need their own.
        buckets = await reader.all(v1alpha1.BUCKETS, v1alpha1.decode_bucket)
        claimed = {claim.meta.uid for claim in claims or ()}
        views += [b for b in buckets or () if b.claim is None or b.claim.uid not in claimed]
    # One request for each, so that only those of one namespace are looked at.
    lost = [] if command.all_namespaces else await reader.lost_secrets(accesses or ())
    rows = render.not_ready(views, lost)
    code = EXIT_NOT_READY if rows else EXIT_OK
    if command.json:
        tree = {"total": len(views), "notReady": rows, "notSeen": reader.missed}
        return Printed(render.to_json(tree), code)
    text = render.status(rows, len(views), where, clock.wall())
    return Printed(text, code, render.unseen(reader.missed))


async def why(command: Command, reader: Reader, _clock: Clock) -> Printed:
    """`cosi why`."""
    assert command.target is not None
    key = Key(command.namespace or reader.client.default_namespace, command.target.name)
    if command.target.kind == "bucketaccess":
        access = _there(
            await reader.one(v1alpha1.BUCKET_ACCESSES, v1alpha1.decode_bucket_access, key),
            f"BucketAccess {key}",
        )
        facts = await reader.access_facts(access)
        subject = render.name_of(access)
    else:
        facts = await reader.claim_facts(key)
        claim = _there(facts.claim, f"BucketClaim {key}")
        subject = render.name_of(claim)
    links = chain(facts)
    is_fine = all(link.state in ("ready", "not visible") for link in links)
    code = EXIT_OK if is_fine else EXIT_NOT_READY
    if command.json:
        tree = {
            "object": subject,
            "ready": is_fine,
            "verdict": render.verdict(links),
            "links": links,
            "notSeen": reader.missed,
        }
        return Printed(render.to_json(tree), code)
    return Printed(render.why(links, subject), code)


def _there[T](found: T | Unseen | None, what: str) -> T:
    match found:
        case None:
            raise CommandError(f"{what}: there is no such object; cosi status -A lists them")
        case Unseen(why=reason):
            raise CommandError(f"{what}: {reason}")
        case _:
            return found


async def drivers(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi drivers`."""
    classes = await reader.all(v1alpha1.BUCKET_CLASSES, v1alpha1.decode_bucket_class)
    access_classes = await reader.all(
        v1alpha1.BUCKET_ACCESS_CLASSES, v1alpha1.decode_bucket_access_class
    )
    buckets = await reader.all(v1alpha1.BUCKETS, v1alpha1.decode_bucket)
    if classes is None and access_classes is None and buckets is None:
        raise CommandError("you may list neither classes nor Buckets, and only these name drivers")
    leases = await reader.all(LEASES, decode_lease)
    rows = render.driver_rows(
        classes or (), access_classes or (), buckets or (), leases, clock.wall()
    )
    if command.json:
        return Printed(render.to_json({"drivers": rows, "notSeen": reader.missed}))
    return Printed(render.drivers(rows, clock.wall()), note=render.unseen(reader.missed))


_RETRIED: Mapping[str, tuple[Resource, Callable[[bytes], Reported]]] = {
    "bucketclaim": (v1alpha1.BUCKET_CLAIMS, v1alpha1.decode_bucket_claim),
    "bucketaccess": (v1alpha1.BUCKET_ACCESSES, v1alpha1.decode_bucket_access),
    "bucket": (v1alpha1.BUCKETS, v1alpha1.decode_bucket),
}


async def retry(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi retry`: a fresh value in the annotation; a ready object is left alone.

    An access whose Secret was removed is not ready: the retry makes new keys.
    """

    async def refusal(view: Reported, what: str) -> str:
        if not is_ready(view) or view.meta.deleting or await _lost_its_secret(reader, view):
            return ""
        if isinstance(view, BucketAccess):
            secret = await reader.secret(Key(view.meta.namespace, view.secret_name))
            if isinstance(secret, SecretFound) and secret.deleting:
                return (
                    f"The Secret of {what} is being deleted. To see what to do first, run: cosi why"
                    f" bucketaccess/{view.meta.name} -n {view.meta.namespace}\n"
                )
        return f"{what} is ready; there is nothing to try again.\n"

    return await _mark(command, reader, clock, RETRY_ANNOTATION, refusal)


async def _lost_its_secret(reader: Reader, view: Reported) -> bool:
    return isinstance(view, BucketAccess) and bool(await reader.lost_secrets([view]))


async def rotate(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi rotate`: a fresh value in the annotation of an access that has keys."""

    async def refusal(view: Reported, what: str) -> str:
        if view.meta.deleting:
            raise CommandError(f"{what} is being deleted, so its keys are not renewed")
        if not is_ready(view):
            raise CommandError(
                f"{what} has no keys yet, so there is nothing to renew; see cosi why"
                f" bucketaccess/{view.meta.name} -n {view.meta.namespace}"
            )
        return ""

    return await _mark(command, reader, clock, ROTATE_ANNOTATION, refusal)


type Refusal = Callable[[Reported, str], Awaitable[str]]


async def _mark(
    command: Command, reader: Reader, clock: Clock, annotation: str, refusal: Refusal
) -> Printed:
    """Write a fresh value into an annotation, unless `refusal` says why not."""
    assert command.target is not None
    resource, decode = _RETRIED[command.target.kind]
    namespace = command.namespace or reader.client.default_namespace
    key = Key(namespace if resource.namespaced else "", command.target.name)
    what = f"{resource.kind} {key}"
    for _ in range(RETRY_TRIES):
        try:
            raw = await reader.client.get(resource, key)
        except NotFound:
            raise CommandError(
                f"{what}: there is no such object; cosi status -A lists them"
            ) from None
        try:
            view = decode(raw)
        except msgspec.ValidationError as error:
            raise CommandError(f"{what}: not readable: {error}") from None
        if why_not := await refusal(view, what):
            return Printed(why_not)
        try:
            return await _annotate(reader.client, resource, raw, clock, annotation)
        except Conflict:
            continue
    raise CommandError(f"{what}: it keeps changing; try again in a moment")


async def _annotate(
    client: KubeClient, resource: Resource, raw: bytes, clock: Clock, annotation: str
) -> Printed:
    body: dict[str, Any] = msgspec.json.decode(raw)
    metadata = body["metadata"]
    stamp = clock.wall().isoformat(timespec="microseconds").replace("+00:00", "Z")
    metadata["annotations"] = {**(metadata.get("annotations") or {}), annotation: stamp}
    await client.update(resource, body)
    key = Key(metadata.get("namespace", ""), metadata["name"])
    what = "will be tried again" if annotation == RETRY_ANNOTATION else "asks for new keys"
    return Printed(
        f"{resource.kind} {key} {what} ({annotation}={stamp}).\n"
        f"See how it went: cosi why {resource.kind.lower()}/{key.name}"
        f"{f' -n {key.namespace}' if key.namespace else ''}\n"
    )


async def rollback_check(command: Command, reader: Reader, _clock: Clock) -> Printed:
    """`cosi rollback-check`: the whole cluster or nothing, since half a list is no permission."""
    seen = await reader.everything()
    if seen is None:
        raise CommandError(
            "this needs the right to list buckets, bucketclaims and bucketaccesses in all"
            " namespaces: ask an administrator of the cluster to run cosi rollback-check"
        )
    found = rollback.mishandled(seen)
    code = EXIT_NOT_READY if found or reader.missed else EXIT_OK
    if command.json:
        return Printed(render.to_json({"mishandled": found, "notSeen": reader.missed}), code)
    text = render.rollback(found, is_all=not reader.missed)
    return Printed(text, code, render.unseen(reader.missed))


type ClusterCommand = Callable[[Command, Reader, Clock], Awaitable[Printed]]

CLUSTER_COMMANDS: Mapping[str, ClusterCommand] = {
    "status": status,
    "why": why,
    "drivers": drivers,
    "retry": retry,
    "rotate": rotate,
    "rollback-check": rollback_check,
}
