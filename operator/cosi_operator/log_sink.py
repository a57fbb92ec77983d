"""Writes log lines to a stream without ever blocking the caller.

If the reader of a pipe stops, the pipe is full after 64 KiB and every further write blocks. A
blocked write on the event loop would block all tasks, including the renewal of the Lease. So a
thread writes the lines, and callers only add lines to a bounded buffer. If the buffer is full or a
write fails, the line is dropped and counted. When a write succeeds again, `on_recovered` is called
once.

The thread is a daemon thread, so a blocked write does not prevent the process from exiting.
"""

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Buffer, Callable
from contextlib import suppress
from typing import override

PENDING_LIMIT_BYTES = 1024 * 1024
"""The size of the buffer, about 3000 lines."""
DRAIN_DEADLINE_S = 1.0
"""The longest time that `drain` waits for the last lines to be written."""
STANDARD_STREAMS = (0, 1, 2)
_installed: list["LogSink"] = []  # the sink of this process, or empty


class LogSink(io.RawIOBase):
    """A binary stream over a file descriptor, for an io.TextIOWrapper that writes through.

    Args:
        descriptor: the file descriptor for the lines. The sink does not close it.
        limit_bytes: the size of the buffer. A line that does not fit is dropped.
    """

    name = "<log sink>"

    def __init__(self, descriptor: int, *, limit_bytes: int = PENDING_LIMIT_BYTES) -> None:
        super().__init__()
        self.dropped = 0
        """Lines dropped since the start."""
        self.on_recovered: Callable[[int], object] = bool
        """Called by the writing thread with the number of lines dropped since the last call."""
        self._descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._lines: deque[bytes] = deque()
        self._pending_bytes = 0
        self._reported = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def text(self) -> io.TextIOWrapper:
        """Return a text stream that passes each written text to this sink immediately."""
        return io.TextIOWrapper(
            self,
            encoding="utf-8",
            errors="backslashreplace",
            write_through=True,
        )

    @override
    def write(self, line: Buffer, /) -> int:
        """Add a line to the buffer; never blocks."""
        line = bytes(line)
        with self._changed:
            if self._pending_bytes + len(line) > self._limit_bytes:
                self.dropped += 1
                return len(line)
            self._lines.append(line)
            self._pending_bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(line)

    @override
    def writable(self) -> bool:
        return True

    @override
    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    @override
    def fileno(self) -> int:
        return self._descriptor

    def drain(self, deadline_s: float = DRAIN_DEADLINE_S) -> None:
        """Wait until everything is written, at most `deadline_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending_bytes == 0, timeout=deadline_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                lines, count = b"".join(self._lines), len(self._lines)
                self._lines.clear()
            is_written = self._write_all(lines)
            with self._changed:
                self._pending_bytes -= len(lines)
                if not is_written:
                    self.dropped += count
                newly = self.dropped - self._reported if is_written else 0
                self._reported += newly
                self._changed.notify_all()
            if newly:
                self.on_recovered(newly)

    def _write_all(self, content: bytes) -> bool:
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError:  # the descriptor is closed, or there is no reader or space
                return False
        return True


def replace_stderr() -> LogSink:
    """Replace sys.stderr by a sink, so that writing to it never blocks or fails.

    A closed standard stream is opened on /dev/null first. Otherwise the next socket would get the
    number of the stream, and a log line would be sent to the other end of that socket.
    """
    for descriptor in STANDARD_STREAMS:
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sink = LogSink(2)
    _installed[:] = [sink]
    sys.stderr = sink.text()
    return sink


def dropped_lines() -> int:
    """Return the number of log lines that this process has dropped."""
    return sum(sink.dropped for sink in _installed)
