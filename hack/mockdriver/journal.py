"""What the mock driver was asked, newest last, and how it answered."""

from collections import Counter, deque
from collections.abc import Mapping

from msgspec import Struct

from cosi_operator.outcome import Call

KEPT_ENTRIES = 50_000


class Entry(Struct):
    """One request. `code` is "" until it is answered, "CANCELLED" if the caller went away."""

    number: int  # counts from 1, across all calls
    time_s: float  # seconds since the epoch, at arrival
    call: Call
    fields: dict[str, str]  # name, bucket_id, account_id, authentication_type, parameters.<key>
    code: str = ""


class Journal:
    """Counts everything, remembers the newest `KEPT_ENTRIES`."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._counts: Counter[tuple[Call, str]] = Counter()
        self._arrived = 0

    def arrive(self, call: Call, fields: Mapping[str, str], time_s: float) -> Entry:
        self._arrived += 1
        entry = Entry(self._arrived, time_s, call, dict(fields))
        self.entries.append(entry)
        return entry

    def answer(self, entry: Entry, code: str) -> None:
        entry.code = code
        self._counts[entry.call, code] += 1

    def counts(self) -> dict[str, dict[str, int]]:
        """Answers per call and code; a call that nobody made is there, empty."""
        table: dict[str, dict[str, int]] = {call.value: {} for call in Call}
        for (call, code), count in self._counts.items():
            table[call.value][code] = count
        return table

    def clear(self) -> None:
        self.entries.clear()
        self._counts.clear()
        self._arrived = 0
