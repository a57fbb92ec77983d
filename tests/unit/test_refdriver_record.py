"""The driver's log: what is written is what is read."""

import pytest

from refdriver import record
from refdriver.record import CallRecord

CALL = CallRecord("DriverCreateBucket", "bucket-1", "INVALID_ARGUMENT", "no “such” name\nat all", 7)


def test_a_record_that_was_written_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    record.write(CALL)
    record.write(CALL)
    assert record.read(capsys.readouterr().out) == [CALL, CALL]


def test_other_lines_and_a_line_still_being_written_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record.write(CALL)
    line = capsys.readouterr().out
    other = 'Traceback\n{"event": "something_else"}\n'
    assert record.read(other + line + line[:-1]) == [CALL]
