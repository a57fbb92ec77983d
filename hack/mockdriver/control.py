"""The mock driver's second socket, over which it is told what to do.

One JSON object a line in each direction: `{"do": "counts"}` is answered with
`{"value": ...}` or `{"error": "..."}`.
"""

from pathlib import Path

import anyio
import msgspec
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

from mockdriver.backend import Backend
from mockdriver.journal import Journal
from mockdriver.rules import Rule, RuleBook
from mockdriver.service import Edits

LONGEST_LINE_BYTES = 1024 * 1024


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    do: str
    rule: Rule | None = None
    only: str = ""


class Control:
    """Answers commands until it is told to stop; then `stopped` is set."""

    def __init__(self, backend: Backend, rules: RuleBook, journal: Journal, edits: Edits) -> None:
        self.stopped = anyio.Event()
        self._backend = backend
        self._rules = rules
        self._journal = journal
        self._edits = edits

    async def serve(self, path: Path, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = await anyio.create_unix_listener(path)  # replaces a dead process's socket
        task_status.started()
        await listener.serve(self._converse)

    async def _converse(self, stream: SocketStream) -> None:
        async with stream:
            lines = BufferedByteReceiveStream(stream)
            while True:
                try:
                    line = await lines.receive_until(b"\n", LONGEST_LINE_BYTES)
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                    return
                try:
                    answer: dict[str, object] = {"value": self._do(line)}
                except (msgspec.MsgspecError, ValueError) as error:
                    answer = {"error": str(error)}
                await stream.send(msgspec.json.encode(answer) + b"\n")

    def _do(self, line: bytes) -> object:
        command = msgspec.json.decode(line, type=Command)
        match command:
            case Command(do="set_rule", rule=Rule() as rule):
                self._rules.add(rule)
            case Command(do="clear_rules"):
                self._rules.clear()
            case Command(do="counts"):
                return self._journal.counts()
            case Command(do="journal"):
                return list(self._journal.entries)
            case Command(do="buckets"):
                return list(self._backend.buckets.values())
            case Command(do="accounts"):
                return list(self._backend.accounts.values())
            case Command(do="reset"):
                self._rules.clear()
                self._journal.clear()
                self._backend.reset()
                self._edits.release()
            case Command(do="hold_edits"):
                self._edits.hold(command.only)
            case Command(do="release_edits"):
                self._edits.release()
            case Command(do="held_edits"):
                return self._edits.waiting
            case Command(do="stop"):
                self.stopped.set()
            case _:
                raise ValueError(f"no such command, or no rule with it: {command.do}")
        return None
