"""The bare limit of the bench: it sends what ours sends, no more and no less, and all is taken."""

from collections import Counter

from bench import limit
from bench.counting import is_write, kind_of
from bench.world import OURS, world
from controlplane import Audit, AuditEntry

COUNT = 5


def test_the_limit_asks_of_the_api_server_what_ours_asks() -> None:
    with world(OURS, audit=Audit.BODIES) as found:
        found.start()
        found.until_idle()
        audit = found.bed.plane.audit

        def writes(since: int) -> Counter[str]:
            def is_asked(entry: AuditEntry) -> bool:
                return entry.is_write and entry.resource != "leases"

            return Counter(map(kind_of, audit.entries(since=since, where=is_asked)))

        mark = audit.mark()
        story = limit.record(found)
        found.stop()
        ours = writes(mark)
        mark = audit.mark()
        turn = limit.tell(found, story, COUNT)
        found.bed.plane.api.call("GET", "/version")
        bare = writes(mark)
        left = found.bed.all_of("bucketclaims") + found.bed.all_of("buckets")

    assert sum(number for kind, number in ours.items() if is_write(kind)) == 10
    assert bare == {kind: number * COUNT for kind, number in ours.items()}
    assert left == []
    assert turn.ready_per_s > 0 < turn.deleted_per_s
