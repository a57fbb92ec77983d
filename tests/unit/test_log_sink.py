"""A log line never blocks its writer: it is written, or dropped and counted."""

import fcntl
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosi_operator.log_sink import LogSink

PIPE_BYTES = 4096
ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe (its reading end, its writing end) of the smallest size that Linux gives."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue  # closed by the test


def read_all(descriptor: int, *, until: bytes) -> bytes:
    """Read up to a text; gives up after 10 s."""
    content = b""
    while until not in content:
        assert select.select([descriptor], [], [], 10.0)[0], f"waited in vain after {content!r}"
        content += os.read(descriptor, 65536)
    return content


def test_lines_are_written_in_order_and_drained_on_exit(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])
    stream = sink.text()
    for number in range(100):
        stream.write(f"{number} \udcff\n")
    sink.drain()
    assert os.read(pipe[0], PIPE_BYTES).decode().split("\n")[:100] == [
        f"{number} \\udcff" for number in range(100)
    ]
    assert sink.dropped == 0


def test_lines_to_a_full_pipe_are_dropped_and_one_line_gives_their_number(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    sink = LogSink(writing, limit_bytes=10_000)
    recovered = threading.Event()
    told: list[int] = []

    def on_recovered(dropped: int) -> None:
        told.append(dropped)
        stream.write(f"dropped={dropped}\n")
        recovered.set()

    sink.on_recovered = on_recovered
    stream = sink.text()
    assert os.write(writing, b"-" * PIPE_BYTES) == PIPE_BYTES  # full, so not a line is written
    for _ in range(1000):
        stream.write("x" * 99 + "\n")  # returns: the test's own timeout would end it otherwise
    before = 1000 - 10_000 // 100
    assert sink.dropped == before
    sink.drain(deadline_s=0.01)  # not written, and not waited for

    content = read_all(reading, until=b"dropped=")
    assert recovered.wait(10.0)
    sink.drain(deadline_s=10.0)
    assert told == [before]
    assert content.count(b"x\n") == 1000 - before
    stream.write("flows again\n")
    read_all(reading, until=b"flows again\n")
    assert told == [before]
    assert sink.dropped == before


def test_a_reader_that_went_away_costs_lines_and_raises_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = LogSink(writing)
    os.close(reading)
    sink.text().write("a\n")
    sink.drain(deadline_s=10.0)
    assert sink.dropped == 1


def run_with_closed(*descriptors: int, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a process that has these standard streams closed from its start."""
    closing = " ".join(f"{descriptor}>&-" for descriptor in descriptors)
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, *arguments],
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": os.defpath, "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["--help"], 0, id="help -> 0"),
        pytest.param(["--no-such-flag"], 2, id="a wrong flag -> 2"),
        pytest.param(["--kubeconfig=/nonexistent"], 2, id="an unusable kubeconfig -> 2"),
    ],
)
@pytest.mark.parametrize("closed", [(2,), (1, 2)], ids=["stderr closed", "both closed"])
def test_closed_streams_leave_the_exit_code_as_it_should_be(
    arguments: list[str], code: int, closed: tuple[int, ...]
) -> None:
    done = run_with_closed(*closed, arguments=["-m", "cosi_operator", "controller", *arguments])
    assert done.returncode == code, done.stderr


def test_a_closed_stream_is_not_the_number_of_the_next_file(tmp_path: Path) -> None:
    """Otherwise a log line would be written into a connection."""
    script = tmp_path / "opens.py"
    script.write_text(
        "import os, sys\n"
        "from cosi_operator.log_sink import replace_stderr\n"
        "sink = replace_stderr()\n"
        f"number = os.open({str(tmp_path / 'a-file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "sys.stderr.write('a secret of the log')\n"
        "sink.drain()\n"
        "sys.exit(number)\n"
    )
    done = run_with_closed(2, arguments=[str(script)])
    assert done.returncode > 2
    assert (tmp_path / "a-file").read_text() == ""
