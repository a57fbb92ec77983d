"""Each command: read, ask the pure parts, and return what to print with the exit code."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec

from cosi_operator.api.core import LEASES
from cosi_operator.api.decode import (
    decode_bucket,
    decode_bucket_access,
    decode_bucket_access_class,
    decode_bucket_claim,
    decode_bucket_class,
)
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
    GROUP,
)
from cosi_operator.api.view import BucketAccess, Key, Resource
from cosi_operator.cli import near, render, rollback
from cosi_operator.cli.arguments import Command
from cosi_operator.cli.presence import AWAY, decode_lease
from cosi_operator.cli.printed import EXIT_NOT_READY, EXIT_OK, CommandError, Printed
from cosi_operator.cli.read import everything
from cosi_operator.cli.text import Layout, clean
from cosi_operator.cli.tree import to_text
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import Conflict, NotFound
from cosi_operator.plan.names import RETRY_ANNOTATION, ROTATE_ANNOTATION
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.connect import ProxyNameError, default_sources, open_api, resolve
from cosi_operator.sdk.diagnosis import Reported, SecretFound, Unseen, chain, is_ready, verdict
from cosi_operator.sdk.explanation import is_fine
from cosi_operator.sdk.read import Reader, Verbs

WATCH_EVERY_S = 2.0
RETRY_TRIES = 5  # each conflict means that someone else has just written


async def status(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi status`. Raises NotInstalledError, ApiError, ApiSilent, as all below."""
    if command.all_namespaces:
        namespace, where = "", "in all namespaces"
    else:
        namespace = command.namespace or reader.client.default_namespace
        where = f"in namespace {namespace}"
    claims = await reader.all(BUCKET_CLAIMS, decode_bucket_claim, namespace=namespace)
    accesses = await reader.all(BUCKET_ACCESSES, decode_bucket_access, namespace=namespace)
    views: list[Reported] = [*(claims or ()), *(accesses or ())]
    if claims is None and accesses is None:
        hint = "; ask for one namespace: -n NAMESPACE" if command.all_namespaces else ""
        raise CommandError(f"you may list neither claims nor accesses {where}{hint}")
    if command.all_namespaces:
        # A claim's row says all of its Bucket; only Buckets without a claim need their own.
        buckets = await reader.all(BUCKETS, decode_bucket)
        claimed = {claim.meta.uid for claim in claims or ()}
        views += [b for b in buckets or () if b.claim is None or b.claim.uid not in claimed]
    lost = await reader.lost_secrets(accesses or ())
    rows = render.not_ready(views, lost)
    code = EXIT_NOT_READY if rows or reader.has_unreadable else EXIT_OK
    if command.is_tree:
        tree = {"total": len(views), "notReady": rows, "notSeen": reader.missed}
        return Printed(to_text(tree, command.output), code)
    note = render.unseen(reader.missed)
    if command.output == "name":
        return Printed(_names((row.kind, row.name) for row in rows), code, note)
    text = render.status(rows, len(views), where, clock.wall(), _layout(command))
    return Printed(text, code, note, facts=(rows, len(views)))


def _names(found: Iterable[tuple[str, str]]) -> str:
    """One line for each object, as `kubectl -o name` writes it and `cosi retry` reads it."""
    return "".join(f"{kind.lower()}.{GROUP}/{clean(name)}\n" for kind, name in found)


def _layout(command: Command) -> Layout:
    return Layout(command.width, is_wide=command.output == "wide")


async def why(command: Command, reader: Reader, _clock: Clock) -> Printed:
    """`cosi why`."""
    assert command.target is not None
    key = Key(command.namespace or reader.client.default_namespace, command.target.name)
    if command.target.kind == "bucketaccess":
        found = await reader.one(BUCKET_ACCESSES, decode_bucket_access, key)
        access = await _there(reader, found, "BucketAccess", key)
        facts = await reader.access_facts(access)
        subject = render.name_of(access)
    else:
        facts = await reader.claim_facts(key)
        claim = await _there(reader, facts.claim, "BucketClaim", key)
        subject = render.name_of(claim)
    links = chain(facts)
    fine = is_fine(links) and not reader.has_unreadable
    code = EXIT_OK if fine else EXIT_NOT_READY
    if command.is_tree:
        tree = {
            "object": subject,
            "ready": fine,
            "verdict": verdict(links),
            "links": links,
            "notSeen": reader.missed,
        }
        return Printed(to_text(tree, command.output), code)
    if command.output == "name":
        causes = [(link.kind, link.name.rpartition("/")[2]) for link in links if link.is_cause]
        return Printed(_names(causes), code)
    return Printed(render.why(links, subject, _layout(command)), code)


async def _there[T](reader: Reader, found: T | Unseen | None, kind: str, key: Key) -> T:
    match found:
        case None:
            raise CommandError(await near.not_found(reader, kind, key))
        case Unseen(why=reason):
            raise CommandError(f"{kind} {key}: {reason}")
        case _:
            return found


async def drivers(command: Command, reader: Reader, clock: Clock) -> Printed:
    """`cosi drivers`."""
    classes = await reader.all(BUCKET_CLASSES, decode_bucket_class)
    access_classes = await reader.all(BUCKET_ACCESS_CLASSES, decode_bucket_access_class)
    buckets = await reader.all(BUCKETS, decode_bucket)
    if classes is None and access_classes is None and buckets is None:
        raise CommandError("you may list neither classes nor Buckets, and only these name drivers")
    leases = await reader.all(LEASES, decode_lease)
    rows = render.driver_rows(
        classes or (), access_classes or (), buckets or (), leases, clock.wall()
    )
    is_away = any(row.sidecar.state in AWAY for row in rows)
    code = EXIT_NOT_READY if is_away or reader.has_unreadable else EXIT_OK
    if command.is_tree:
        return Printed(to_text({"drivers": rows, "notSeen": reader.missed}, command.output), code)
    note = render.unseen(reader.missed)
    if command.output == "name":
        return Printed("".join(f"{clean(row.driver)}\n" for row in rows), code, note)
    text = render.drivers(rows, clock.wall(), _layout(command))
    return Printed(text, code, note, facts=rows)


_RETRIED: Mapping[str, tuple[Resource, Callable[[bytes], Reported]]] = {
    "bucketclaim": (BUCKET_CLAIMS, decode_bucket_claim),
    "bucketaccess": (BUCKET_ACCESSES, decode_bucket_access),
    "bucket": (BUCKETS, decode_bucket),
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
            raise CommandError(await near.not_found(reader, resource.kind, key)) from None
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
    client: Verbs, resource: Resource, raw: bytes, clock: Clock, annotation: str
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
    """`cosi rollback-check`: all objects, because a part of them can't permit a rollback."""
    seen = await everything(reader)
    if seen is None:
        raise CommandError(
            "this needs the right to list buckets, bucketclaims and bucketaccesses in all"
            " namespaces: ask an administrator of the cluster to run cosi rollback-check"
        )
    found = rollback.mishandled(seen)
    code = EXIT_NOT_READY if found or reader.missed else EXIT_OK
    if command.is_tree:
        return Printed(
            to_text({"mishandled": found, "notSeen": reader.missed}, command.output), code
        )
    note = render.unseen(reader.missed)
    if command.output == "name":
        return Printed(_names((each.kind, each.name) for each in found), code, note)
    text = render.rollback(found, is_all=not reader.missed, layout=_layout(command))
    return Printed(text, code, note)


type ClusterCommand = Callable[[Command, Reader, Clock], Awaitable[Printed]]

CLUSTER_COMMANDS: Mapping[str, ClusterCommand] = {
    "status": status,
    "why": why,
    "drivers": drivers,
    "retry": retry,
    "rotate": rotate,
    "rollback-check": rollback_check,
}


@asynccontextmanager
async def connect(command: Command, clock: Clock) -> AsyncIterator[Verbs]:
    """A client for the cluster that the command line and the environment name.

    Raises:
        KubeconfigError, ApiError, ApiSilent: as of `open_api`.
    """
    sources = default_sources(command.kubeconfig, command.context)
    try:
        resolved = await resolve(sources)
    except ProxyNameError:  # the operator's own client can
        from cosi_operator.kube.client import KubeClient
        from cosi_operator.kube.kubeconfig import load

        connection = await load(sources, clock)
        async with KubeClient(connection, clock=clock, user_agent="cosi") as client:
            yield client
    else:
        api = await open_api(resolved)
        try:
            yield Client(api, clock)
        finally:
            await api.close()


async def run(command: Command, client: Verbs, clock: Clock) -> Printed:
    """Run one command against a cluster.

    Raises:
        CommandError, NotInstalledError: it could not be done; the text is for the user.
        ApiError, ApiSilent: the server refused, or did not answer.
    """
    return await CLUSTER_COMMANDS[command.name](command, Reader(client), clock)


async def watch(
    command: Command, client: Verbs, clock: Clock, has_reader: Callable[[], bool] = lambda: True
) -> AsyncIterator[Printed]:
    """Run the command again and again; yield what differs from before.

    `cosi why` ends when everything is ready, the others when nobody reads the output any more.

    Raises:
        CommandError, NotInstalledError, ApiError, ApiSilent: as of `run`.
    """
    before: object = None
    while True:
        now = await run(command, client, clock)
        facts = (now.facts or now.out, now.code, now.note)
        if facts != before:
            apart = "" if before is None or command.output != "table" else "\n"
            yield replace(now, out=f"{apart}{now.out}")
            before = facts
        if command.name == "why" and now.code == EXIT_OK:
            return
        await clock.sleep(WATCH_EVERY_S)
        if not has_reader():
            return
