"""One line of JSON for each answered call: what the driver's log holds and its readers read."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

EVENT = "driver_call"

_files: list[Path] = []


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One answered call. There is no field that a credential could get into."""

    call: str
    """The RPC's name, as in DriverCreateBucket."""
    subject: str
    """What it was about: the name or id of the bucket, and of the account if there is one."""
    code: str
    """The gRPC status' name, as in OK."""
    message: str
    """The words sent with a status that isn't OK, else ""."""
    elapsed_ms: int


def append_to(file: Path) -> None:
    """Also append every further record to `file`, which several drivers may share."""
    _files.append(file)


def write(record: CallRecord) -> None:
    """Print the record to standard output, and append it to the files of `append_to`."""
    line = json.dumps({"event": EVENT, **asdict(record)}) + "\n"
    sys.stdout.write(line)  # in one piece: several threads write
    sys.stdout.flush()
    for file in _files:
        with file.open("a") as opened:
            opened.write(line)


def read(text: str) -> list[CallRecord]:
    """Return the records in a log, oldest first; other lines are left out.

    A last line without its end is left out too: it is still being written.
    """
    records = []
    for line in text.splitlines(keepends=True):
        if not (line.startswith("{") and line.endswith("\n")):
            continue
        fields = json.loads(line)
        if fields.pop("event") == EVENT:
            records.append(CallRecord(**fields))
    return records
