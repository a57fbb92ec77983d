"""An API server at the wire, for tests: objects in memory, list-watch, and faults on demand.

It serves any resource over HTTP on 127.0.0.1. One counter gives resourceVersions, the history
feeds watches, and a test can make the next request of a verb fail in each way a network can.
"""

import asyncio
import enum
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import anyio
from aiohttp import web
from tests.support.clock import PATIENCE_S

from cosi_operator.api.view import Key, Resource
from cosi_operator.clock import Clock
from cosi_operator.kube.auth import Credentials, FixedToken
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.kubeconfig import Connection
from cosi_operator.kube.transport import OnRequest

type Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    verb: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Json | None


@dataclass(frozen=True)
class Reply:
    """Answer with a status (a metav1.Status body is made from `reason` and `message`)."""

    status: int
    reason: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer, before or after the request took effect."""

    applied: bool = False


@dataclass(frozen=True)
class Hang:
    """Never answer, before or after the request took effect."""

    applied: bool = False


type Fault = Reply | Drop | Hang


class End(enum.Enum):
    """How the server ends a watch."""

    IN_ORDER = "in order"
    CUT = "cut"


class Watcher:
    """The server's end of one watch."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.queue: asyncio.Queue[bytes | End] = asyncio.Queue()

    def say(self, raw: bytes) -> None:
        """Send these bytes, as they are."""
        self.queue.put_nowait(raw)

    def line(self, kind: str, body: Json) -> None:
        self.say(json.dumps({"type": kind, "object": body}, ensure_ascii=False).encode() + b"\n")

    def say_and(self, raw: bytes, end: "End") -> None:
        """Send these bytes, then nothing more."""
        self.say(raw)
        self.queue.put_nowait(end)

    def end(self) -> None:
        """End it in order, as the server does after timeoutSeconds."""
        self.queue.put_nowait(End.IN_ORDER)

    def cut(self) -> None:
        """Break the connection."""
        self.queue.put_nowait(End.CUT)


class StubApiServer:
    """State of the server; `url` is set while it runs."""

    def __init__(self) -> None:
        self.url = ""
        self.version = 100
        self.objects: dict[str, Json] = {}  # by path
        self.history: list[tuple[int, str, Json]] = []
        self.compacted = 0
        self.seen: list[Seen] = []
        self.watchers: list[Watcher] = []
        self.allowed_tokens: set[str] | None = None
        self._faults: list[tuple[str, Fault]] = []
        self._forbidden: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()

    # --- what a test does

    def fail_next(self, verb: str, *faults: Fault) -> None:
        """The next requests of `verb` meet these, one each."""
        self._faults.extend((verb, fault) for fault in faults)

    def forbid(self, verb: str, plural: str) -> None:
        self._forbidden.add((verb, plural))

    def allow(self, verb: str, plural: str) -> None:
        self._forbidden.discard((verb, plural))

    def put(self, resource: Resource, key: Key, **fields: Any) -> Json:
        """Create or change an object, as some other client would."""
        path = resource.path(key.namespace, key.name)
        old = self.objects.get(path)
        metadata = dict(old["metadata"]) if old else {"uid": f"uid-{self.version + 1}"}
        metadata |= {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
        metadata |= fields.pop("metadata", {})
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | (old or {}) | fields
        return self._store(path, {**body, "metadata": metadata}, "MODIFIED" if old else "ADDED")

    def drop(self, resource: Resource, key: Key) -> None:
        """Delete an object, as some other client would."""
        path = resource.path(key.namespace, key.name)
        self._store(path, self.objects.pop(path), "DELETED")

    def compact(self) -> None:
        """Forget the history: watches from before now get 410."""
        self.compacted = self.version

    def count(self, verb: str) -> int:
        return sum(1 for seen in self.seen if seen.verb == verb)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; looked at after each request and watch line.

        Raises:
            AssertionError: not within PATIENCE_S; lists the last requests.
        """
        with anyio.move_on_after(PATIENCE_S) as patience:
            while not condition():
                self._changed.clear()
                await self._changed.wait()
        if patience.cancelled_caught:
            last = [f"{seen.verb} {seen.path}" for seen in self.seen[-10:]]
            raise AssertionError(f"waited {PATIENCE_S:g} s in vain; the last requests: {last}")

    async def watcher(self, number: int = 1) -> Watcher:
        """The `number`th watch that was opened, as soon as it is."""
        await self.wait_for(lambda: len(self.watchers) >= number)
        return self.watchers[number - 1]

    # --- the server

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        if request.path.rstrip("/") == "/version":  # kr8s asks before everything else
            return self._version()
        parts = request.path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        if parts[0] == "namespaces" and len(parts) > 2:
            parts = parts[2:]
        verb = _verb(request, has_name=len(parts) > 1)
        self.seen.append(
            Seen(
                verb,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(raw) if raw else None,
            )
        )
        self._changed.set()
        token = request.headers.get("Authorization", "")
        if self.allowed_tokens is not None and token not in self.allowed_tokens:
            return _refuse(401, "Unauthorized", "Unauthorized")
        if (verb, parts[0]) in self._forbidden:
            return _refuse(403, "Forbidden", f"cannot {verb} resource {parts[0]}")
        fault = self._fault(verb)
        match fault:
            case Reply():
                if fault.body is not None:
                    return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
                return _refuse(fault.status, fault.reason, fault.message, fault.headers)
            case Hang(applied=False):
                await asyncio.Event().wait()
            case Drop(applied=False):
                _abort(request)
            case _:
                pass
        response = await self._answer(verb, request, self.seen[-1].body or {}, parts[-1])
        if isinstance(fault, Drop):
            _abort(request)
        if isinstance(fault, Hang):
            self._changed.set()
            await asyncio.Event().wait()
        return response

    def _version(self) -> web.Response:
        fault = self._fault("version")
        if isinstance(fault, Reply):
            return web.Response(status=fault.status, body=fault.body)
        return web.json_response({"gitVersion": "v1.34.0"})

    async def _answer(
        self, verb: str, request: web.Request, body: Json, last: str
    ) -> web.StreamResponse:
        path = request.path
        match verb:
            case "list":
                return self._list(request)
            case "watch":
                return await self._watch(request)
            case "create":
                return self._create(path, body, dry_run="dryRun" in request.query)
            case "update" if last == "status":
                path = path.removesuffix("/status")
        held = self.objects.get(path)
        if held is None:
            return _refuse(404, "NotFound", f"{last} not found")
        wanted: Json = body.get("metadata") or body.get("preconditions") or {}
        for name in ("uid", "resourceVersion"):
            if wanted.get(name, held["metadata"][name]) != held["metadata"][name]:
                return _refuse(409, "Conflict", "the object has been modified")
        if verb == "update":
            metadata = {**body["metadata"], "uid": held["metadata"]["uid"]}
            held = self._store(path, {**body, "metadata": metadata}, "MODIFIED")
        elif verb == "delete":
            self._store(path, self.objects.pop(path), "DELETED")
            return web.json_response({"kind": "Status", "status": "Success"})
        return web.json_response(held)

    def _create(self, path: str, body: Json, *, dry_run: bool) -> web.Response:
        namespace = path.split("/")[-2] if "/namespaces/" in path else ""
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            return _refuse(409, "AlreadyExists", f"{path} already exists")
        metadata = {**body["metadata"], "uid": f"uid-{self.version + 1}"}
        metadata |= {"namespace": namespace} if namespace else {}
        body = {**body, "metadata": metadata}
        stored = body if dry_run else self._store(path, body, "ADDED")
        return web.json_response(stored, status=201)

    def _list(self, request: web.Request) -> web.Response:
        """Continue tokens hold the version and the last path, as the real ones do."""
        version, after = self.version, ""
        if token := request.query.get("continue"):
            version, after = int(token.split("|")[0]), token.split("|")[1]
            if version < self.compacted:
                return _refuse(410, "Expired", "the continue token is too old")
        state = self.at(version)
        paths = sorted(path for path in state if _within(path, request.path) and path > after)
        limit = int(request.query.get("limit", "0")) or len(paths)
        metadata = {"resourceVersion": str(version)}
        if len(paths) > limit:
            metadata["continue"] = f"{version}|{paths[limit - 1]}"
        items = [state[path] for path in paths[:limit]]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.compacted:
            return _refuse(410, "Expired", f"too old resource version: {since}")
        if since > self.version:
            return _refuse(504, "Timeout", f"too large resource version: {since}")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watcher = Watcher(request.path)
        for version, kind, body in self.history:
            if version > since and _within(_path_of(body), request.path):
                watcher.line(kind, _visible(body))
        self.watchers.append(watcher)
        self._changed.set()
        while True:
            match await watcher.queue.get():
                case bytes(chunk):
                    await response.write(chunk)
                case End.IN_ORDER:
                    return response
                case End.CUT:
                    _abort(request)

    def at(self, version: int) -> dict[str, Json]:
        """The objects as they were at `version`."""
        state: dict[str, Json] = {}
        for number, kind, body in self.history:
            if number <= version:
                if kind == "DELETED":
                    state.pop(_path_of(body), None)
                else:
                    state[_path_of(body)] = _visible(body)
        return state

    def _store(self, path: str, body: Json, kind: str) -> Json:
        self.version += 1
        stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if kind != "DELETED":
            self.objects[path] = stored
        self.history.append((self.version, kind, {**stored, "__path": path}))
        for watcher in self.watchers:
            if _within(path, watcher.collection):
                watcher.line(kind, stored)
        return stored

    def _fault(self, verb: str) -> Fault | None:
        for number, (wanted, fault) in enumerate(self._faults):
            if wanted == verb:
                del self._faults[number]
                return fault
        return None


def _verb(request: web.Request, *, has_name: bool) -> str:
    if request.method == "GET":
        if "watch" in request.query:
            return "watch"
        return "get" if has_name else "list"
    return {"POST": "create", "PUT": "update", "DELETE": "delete", "PATCH": "patch"}[request.method]


def _path_of(body: Json) -> str:
    path: str = body["__path"]
    return path


def _visible(body: Json) -> Json:
    return {name: value for name, value in body.items() if name != "__path"}


def _within(path: str, collection: str) -> bool:
    """Whether the object at `path` belongs to a collection, of a namespace or of all."""
    if path.rsplit("/", 1)[0] == collection:
        return True
    prefix, _, plural = collection.rpartition("/")
    return path.startswith(f"{prefix}/namespaces/") and path.split("/")[-2] == plural


def _refuse(
    status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return web.json_response({**body, "code": status}, status=status, headers=headers)


def _abort(request: web.Request) -> NoReturn:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[StubApiServer]:
    """Run a server on a free port of 127.0.0.1."""
    server = StubApiServer()
    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def client_of(
    server: StubApiServer,
    clock: Clock,
    *,
    credentials: Credentials | None = None,
    timeout_s: float = 30.0,
    on_request: OnRequest | None = None,
) -> KubeClient:
    """A client of that server, without a kubeconfig."""
    connection = Connection(server.url, "default", credentials or FixedToken("token-1"))
    return KubeClient(
        connection, clock=clock, user_agent="test/1", timeout_s=timeout_s, on_request=on_request
    )
