"""The gRPC half of the mock driver: five calls, each bent by the rule that fits it."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from cosi_operator.outcome import Call, Code
from cosi_operator.rpc import cosi_pb2
from mockdriver.backend import Account, Backend, RefusedError
from mockdriver.journal import Journal
from mockdriver.rules import Rule, RuleBook

# A length-delimited field that promises more bytes than follow: no parser takes it.
UNPARSABLE = b"\x0a\xff\x01x"

type Context = grpc.aio.ServicerContext[Any, bytes]
type Handler = Callable[[Any, Context], Awaitable[bytes]]


class Edits:
    """Whether edits of a shared document are held, and how many of them wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self._released = asyncio.Event()
        self._released.set()
        self._only = ""

    def hold(self, only: str) -> None:
        """Hold those whose account's name or id contains `only`."""
        self._only = only
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def until_released(self, account: str) -> None:
        if self._only not in account:
            return
        self.waiting += 1
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1


class Service:
    """Answers the COSI calls from a backend.

    Args:
        name: what DriverGetInfo answers.
        edits: holds calls with a rule `edit` between their reading and their writing.
    """

    def __init__(
        self, name: str, backend: Backend, rules: RuleBook, journal: Journal, edits: "Edits"
    ) -> None:
        self._name = name
        self._backend = backend
        self._rules = rules
        self._journal = journal
        self._edits = edits

    def register(self, server: grpc.aio.Server) -> None:
        """Serve both services. Replies are raw bytes, so that a rule can break them."""
        identity = {Call.GET_INFO: cosi_pb2.DriverGetInfoRequest.FromString}
        provisioner = {
            Call.CREATE_BUCKET: cosi_pb2.DriverCreateBucketRequest.FromString,
            Call.DELETE_BUCKET: cosi_pb2.DriverDeleteBucketRequest.FromString,
            Call.GRANT_ACCESS: cosi_pb2.DriverGrantBucketAccessRequest.FromString,
            Call.REVOKE_ACCESS: cosi_pb2.DriverRevokeBucketAccessRequest.FromString,
        }
        for service, calls in (("Identity", identity), ("Provisioner", provisioner)):
            handlers: dict[str, grpc.RpcMethodHandler[Any, bytes]] = {
                call.value: grpc.unary_unary_rpc_method_handler(
                    self._handler(call), request_deserializer=parse
                )
                for call, parse in calls.items()
            }
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"cosi.v1alpha1.{service}", handlers),)
            )

    def _handler(self, call: Call) -> Handler:
        async def answer(request: Message, context: Context) -> bytes:
            fields = _fields(request) | _trace(context)
            entry = self._journal.arrive(call, fields, time.time())
            code = Code.CANCELLED  # stays if the caller goes away
            try:
                code, message, reply, rule = await self._play(call, request, fields)
            finally:
                self._journal.answer(entry, code.name)
            if code is not Code.OK:
                if rule.headers_first:
                    await context.send_initial_metadata(())
                await context.abort(_GRPC_CODES[code], message)
            return reply

        return answer

    async def _play(
        self, call: Call, request: Any, fields: Mapping[str, str]
    ) -> tuple[Code, str, bytes, Rule]:
        rule = self._rules.take(call, fields)
        if rule.delay_s:
            await asyncio.sleep(rule.delay_s)
        if rule.die == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        reply: Message | None = None
        if rule.acts:
            try:
                if rule.edit and call in (Call.GRANT_ACCESS, Call.REVOKE_ACCESS):
                    reply = await self._edit(call, request, rule)
                else:
                    reply = self._act(call, request, rule)
            except RefusedError as refused:
                return refused.code, str(refused), b"", rule
        if rule.die == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if rule.hang:
            await asyncio.get_running_loop().create_future()
        if rule.code != "OK" or reply is None:
            return Code[rule.code], _message(rule, reply), b"", rule
        return Code.OK, "", _bend(reply, rule), rule

    async def _edit(self, call: Call, request: Any, rule: Rule) -> Message:
        """Act, but by replacing a document that was read before, as drivers without a lock do."""
        scope = request.bucket_id if rule.edit == "bucket" else None
        document = self._backend.document(scope)
        account = request.name if call is Call.GRANT_ACCESS else request.account_id
        await self._edits.until_released(account)
        before = set(self._backend.accounts)
        reply = self._act(call, request, rule)
        for account_id in set(self._backend.accounts) - before:
            document[account_id] = self._backend.accounts[account_id]
        if call is Call.REVOKE_ACCESS:
            document.pop(request.account_id, None)
        self._backend.write_back(scope, document)
        return reply

    def _act(self, call: Call, request: Any, rule: Rule) -> Message:
        match call:
            case Call.GET_INFO:
                return cosi_pb2.DriverGetInfoResponse(name=self._name)
            case Call.CREATE_BUCKET:
                bucket = self._backend.create_bucket(request.name, request.parameters)
                return cosi_pb2.DriverCreateBucketResponse(bucket_id=bucket.bucket_id)
            case Call.DELETE_BUCKET:
                self._backend.delete_bucket(request.bucket_id)
                return cosi_pb2.DriverDeleteBucketResponse()
            case Call.GRANT_ACCESS:
                account = self._backend.grant(
                    request.bucket_id,
                    request.name,
                    new_account=rule.reply == "new_account",
                    new_keys=rule.reply == "new_keys",
                )
                return cosi_pb2.DriverGrantBucketAccessResponse(
                    account_id=account.account_id, credentials=_credentials(account, rule)
                )
            case Call.REVOKE_ACCESS:
                self._backend.revoke(request.account_id)
                return cosi_pb2.DriverRevokeBucketAccessResponse()


_GRPC_CODES = {code: grpc.StatusCode[code.name] for code in Code}


def _fields(request: Any) -> dict[str, str]:
    """The request flat: scalar fields by name, map entries as <map>.<key>; contexts too."""
    flat: dict[str, str] = {}
    for field in request.DESCRIPTOR.fields:
        value = getattr(request, field.name)
        if field.message_type is not None:  # the only messages in requests are maps
            flat |= {f"{field.name}.{key}": text for key, text in value.items()}
        elif field.enum_type is not None:
            flat[field.name] = field.enum_type.values_by_number[value].name
        else:
            flat[field.name] = value
    return flat


def _trace(context: Context) -> dict[str, str]:
    """Which trace the call belongs to, if it says so (W3C Trace Context)."""
    metadata = context.invocation_metadata() or ()
    return {name: str(value) for name, value in metadata if name == "traceparent"}


def _credentials(account: Account, rule: Rule) -> dict[str, cosi_pb2.CredentialDetails]:
    if rule.reply == "no_credentials":
        return {}
    if rule.reply == "azure_credentials":
        secrets = {"accessToken": account.secret_key}
        return {"azure": cosi_pb2.CredentialDetails(secrets=secrets)}
    secrets = {
        "accessKeyId": account.access_key,
        "accessSecretKey": account.secret_key,
        "endpoint": "https://s3.example.com",
        "region": "us-east-1",
    }
    if rule.reply == "large_credentials":  # more than a Secret can hold
        secrets["accessSecretKey"] += "x" * 1_500_000
    if rule.reply == "partial_credentials":
        del secrets["accessSecretKey"]
    return {"s3": cosi_pb2.CredentialDetails(secrets=secrets)}


def _message(rule: Rule, reply: Any) -> str:
    """The words of a refusal."""
    message = rule.message.replace("{request_id}", uuid.uuid4().hex)
    if "{secret_key}" in message:
        secrets = reply.credentials["s3"].secrets
        message = message.replace("{secret_key}", secrets["accessSecretKey"])
    return message


def _bend(reply: Message, rule: Rule) -> bytes:
    """The bytes to send: the reply, or what the rule makes of it."""
    for field, value in rule.reply_fields.items():
        setattr(reply, field, value)
    match rule.reply:
        case "malformed":
            return UNPARSABLE
        case "oversize":
            # Field 15 exists in no reply: valid bytes that a parser skips, but too many.
            size = rule.oversize_bytes
            return reply.SerializeToString() + b"\x7a" + _varint(size) + bytes(size)
        case "empty_id":
            for field in ("name", "bucket_id", "account_id"):
                if field in reply.DESCRIPTOR.fields_by_name:
                    reply.ClearField(field)
        case _:  # the others change the reply's content, not its form
            pass
    return reply.SerializeToString()


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
