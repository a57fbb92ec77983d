"""Objects that nobody should make, and replies that no driver should give, on real parts.

The rule: the processes survive, each object that is ours to judge says how it is (a condition, an
Event, or it is ready), nothing ends in InternalError, and good objects go on as if nothing were.
"""

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from controlplane import ApiError, Audit
from cosi_operator.outcome import Call
from testbed import NAMESPACE, Testbed, access_body, claim_body, condition
from testbed.bed import OUR_CRDS
from testbed.objects import path_of, typed

SEED = int(os.environ.get("BAD_OBJECTS_SEED", "20261124"))
UPSTREAM_CRDS = Path(__file__).parents[1] / "support" / "upstream_crds"
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
MIB = 1024 * 1024
HUGE = "x" * (MIB - 32 * 1024)  # with the rest of the object just below etcd's limit
SETTLE_S = 60.0
PER_KIND = {OUR_CRDS: 40, UPSTREAM_CRDS: 60}

type Json = dict[str, Any]

WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "null", "true", "0", "../../x", "a/b", "?x=1", "#", "%2e%2e", "%", "A B", "." * 9]
    ),
    st.sampled_from(["n" * 63, "n" * 253, "n" * 254, "n" * 5000, "-", "Ä", "🪣", "\ud7ff", "\x7f"]),
    st.text(st.sampled_from(LINE_ENDS + "ab\t\x01"), max_size=6),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
)
PAIRS = st.dictionaries(WORDS, WORDS, max_size=4)
ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [
            "objectstorage.k8s.io/retry",
            "cosi.objectstorage.k8s.io/driver",
            "cosi.objectstorage.k8s.io/bucket-id",
            "cosi.objectstorage.k8s.io/account-id",
            "cosi.objectstorage.k8s.io/status",
            "example.com/" + "k" * 63,
        ]
    ),
    st.one_of(WORDS, st.just("{"), st.just("[" * 2000), st.just('{"conditions": 1}')),
    max_size=3,
)
PROTOCOLS = st.lists(st.one_of(st.sampled_from(["S3", "s3", "Azure", "GCS"]), WORDS), max_size=3)
CLASSES = st.one_of(st.sampled_from(["good", "odd-0", "odd-1", "odd-2", "huge", "absent"]), WORDS)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Any of these fields, and now and then a null or a wrong type in place of one."""
    wrong: st.SearchStrategy[Any] = st.sampled_from([None, 7, [], {}, True])
    odd = {key: st.one_of(*[value] * 8, wrong) for key, value in fields.items()}
    return st.fixed_dictionaries({}, optional=odd)


CLAIM_SPECS = optional(
    protocols=PROTOCOLS, bucketClassName=CLASSES, existingBucketName=WORDS, unknown=WORDS
).map(lambda spec: {"protocols": ["S3"], **spec})
BUCKET_SPECS = optional(
    bucketClaim=st.one_of(
        st.just({}), optional(name=WORDS, namespace=WORDS, uid=WORDS, kind=WORDS, apiVersion=WORDS)
    ),
    bucketClassName=CLASSES,
    protocols=PROTOCOLS,
    existingBucketID=WORDS.filter(str),  # a hand-made Bucket is a static one, or has no claim
    deletionPolicy=st.one_of(st.sampled_from(["Delete", "Retain"]), WORDS),
    parameters=PAIRS,
).map(
    lambda spec: {
        "bucketClaim": {},
        "bucketClassName": "good",
        "protocols": ["S3"],
        "driverName": "mock.objectstorage.k8s.io",
        **spec,
    }
)
ACCESS_SPECS = optional(
    bucketClaimName=st.one_of(st.sampled_from(["base", "absent"]), WORDS),
    bucketAccessClassName=CLASSES,
    credentialsSecretName=st.one_of(st.sampled_from(["taken-0", "taken-1", "taken-2"]), WORDS),
    protocol=WORDS,
    serviceAccountName=WORDS,
).map(
    lambda spec: {
        "bucketClaimName": "base",
        "bucketAccessClassName": "good",
        "credentialsSecretName": "keys",
        **spec,
    }
)
STATUSES = optional(
    bucketReady=st.booleans(),
    bucketName=WORDS,
    bucketID=WORDS,
    accessGranted=st.booleans(),
    accountID=WORDS,
    conditions=st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Ready", "Stalled", "Foreign", "x/y"]),
                "status": st.sampled_from(["True", "False", "Unknown", "?"]),
                "reason": st.sampled_from(["R", "R,:"]),
                "message": WORDS,
                "lastTransitionTime": st.sampled_from(
                    ["2020-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "0001-01-01T00:00:00Z"]
                ),
            }
        ),
        max_size=2,
    ),
    observedGeneration=st.integers(-1, 2**63 - 1),
    lastCall=st.fixed_dictionaries({"call": WORDS, "attempts": st.integers()}),
)


def draw[T](strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """So many values, the same for the same seed."""
    found: list[T] = []

    @seed(SEED)
    @settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    assert len(found) >= count
    return found[:count]


class Odd:
    """Puts odd objects onto a testbed; what the API server's schema refuses is only counted."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.admitted: list[tuple[str, str]] = []
        self.refused = 0

    def put(self, plural: str, body: Json, status: Json | None = None) -> bool:
        name = body["metadata"]["name"]
        try:
            self.bed.create(plural, body)
        except ApiError as error:
            if error.code not in (400, 413, 422, 500):
                raise
            self.refused += 1
            return False
        self.admitted.append((plural, name))
        if status is not None:
            self._put_status(plural, name, status)
        return True

    def _put_status(self, plural: str, name: str, status: Json) -> None:
        fresh = self.bed.get(plural, name)
        required = (
            {"accessGranted": False} if plural == "bucketaccesses" else {"bucketReady": False}
        )
        fresh["status"] = {**required, **status}
        try:
            path = path_of(plural, NAMESPACE, name) + "/status"
            self.bed.plane.api.call("PUT", path, typed(plural, fresh))
        except ApiError as error:
            if error.code not in (409, 422):
                raise


def odd_classes(odd: Odd, *, limited: bool) -> None:
    parameters = draw(PAIRS, 3)
    for number, given_ in enumerate(parameters):
        common = {"metadata": {"name": f"odd-{number}"}, "driverName": odd.bed.driver.name}
        odd.put("bucketclasses", {**common, "parameters": given_, "deletionPolicy": "Delete"})
        kind = ("Key", "IAM", "\u2028")[number]
        odd.put("bucketaccessclasses", {**common, "parameters": given_, "authenticationType": kind})
    huge = {"metadata": {"name": "huge"}, "driverName": odd.bed.driver.name}
    huge["parameters"] = {"x": HUGE}
    assert odd.put("bucketclasses", {**huge, "deletionPolicy": "Delete"}) is not limited
    assert odd.put("bucketaccessclasses", {**huge, "authenticationType": "Key"}) is not limited


def odd_secrets(odd: Odd) -> None:
    contents = [b"{", b"[" * 100_000, b'{"metadata": {"name": {"a": [null]}}}\xff']
    for number, content in enumerate(contents):
        data = {"BucketInfo": base64.b64encode(content).decode()}
        odd.bed.create("secrets", {"metadata": {"name": f"taken-{number}"}, "data": data})


def odd_objects(odd: Odd, count: int) -> None:
    """Three kinds, of which upstream's schema admits two thirds. Every third has a status."""
    kinds = (
        ("bucketclaims", CLAIM_SPECS), ("buckets", BUCKET_SPECS), ("bucketaccesses", ACCESS_SPECS)
    )  # fmt: skip
    for plural, specs in kinds:
        notes, statuses = draw(ANNOTATIONS, count), draw(STATUSES, count)
        for number, spec in enumerate(draw(specs, count)):
            long = "-" + "l" * 240 if number % 9 == 0 else ""
            metadata = {"name": f"odd-{plural[:8]}-{number:02}{long}"[:253]}
            if plural != "buckets":
                metadata["namespace"] = NAMESPACE
            body = {"metadata": {**metadata, "annotations": notes[number]}, "spec": spec}
            odd.put(plural, body, statuses[number] if number % 3 == 0 else None)
    for number in range(3):
        odd.put("bucketclaims", claim_body(f"odd-huge-{number}", class_name="huge"))
    odd.put("bucketaccesses", access_body("odd-huge", class_name="huge", claim="base"))


def says_how_it_is(bed: Testbed, plural: str, body: Json, told: set[str]) -> bool:
    """A condition of ours, upstream's own ready, an Event, or it is of nobody's driver."""
    status = body.get("status") or {}
    ours = condition(body, "Ready").get("observedGeneration") == body["metadata"]["generation"]
    ready = status.get("accessGranted" if plural == "bucketaccesses" else "bucketReady")
    noted = "cosi.objectstorage.k8s.io/status" in (body["metadata"].get("annotations") or {})
    foreign = body["metadata"].get("annotations", {}).get("cosi.objectstorage.k8s.io/driver", "")
    if plural == "bucketaccesses" and foreign not in ("", bed.driver.name):
        return True  # another driver's sidecar has taken it on, it says
    if plural == "buckets" and body["spec"]["driverName"] != bed.driver.name:
        return True
    return bool(ours or ready or noted or body["metadata"]["uid"] in told)


def silent_ones(bed: Testbed, odd: Odd) -> list[str]:
    told = {
        e["involvedObject"].get("uid", "")
        for space in (NAMESPACE, "default")
        for e in bed.all_of("events", space)
    }
    names = set(odd.admitted)
    return [
        f"{plural} {body['metadata']['name']}: {json.dumps(body)[:900]}"
        for plural in ("bucketclaims", "buckets", "bucketaccesses")
        for body in bed.all_of(plural)
        if (plural, body["metadata"]["name"]) in names
        and not says_how_it_is(bed, plural, body, told)
    ]


@pytest.fixture(params=[OUR_CRDS, UPSTREAM_CRDS], ids=["our CRDs", "upstream's CRDs"])
def own_bed(request: pytest.FixtureRequest) -> Iterator[tuple[Testbed, int]]:
    """A testbed of its own, and how many odd objects of each kind to make on it."""
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), crds=request.param, audit=Audit.NOTHING) as bed,
    ):
        yield bed, PER_KIND[request.param]


@pytest.mark.timeout(180)
def test_odd_objects_are_told_apart_and_stop_nobody(own_bed: tuple[Testbed, int]) -> None:
    print(f"BAD_OBJECTS_SEED={SEED}")
    bed, count = own_bed
    limited = count == PER_KIND[OUR_CRDS]
    pids = {role: process.pid for role, process in bed.processes.items()}
    bed.make_classes("good")
    bed.make_claims(["base"], class_name="good")
    odd = Odd(bed)
    odd_classes(odd, limited=limited)
    odd_secrets(odd)
    odd_objects(odd, count)
    print(f"{len(odd.admitted)} odd objects, {odd.refused} refused by the API server")
    assert len(odd.admitted) > (1.2 if limited else 1.6) * count
    good = [f"good-{number}" for number in range(10)]
    bed.make_claims(good, class_name="good")
    bed.make_accesses(good, class_name="good")
    bed.until_ready("bucketaccesses", good)
    try:
        bed.until("every odd object", lambda: not silent_ones(bed, odd), timeout_s=SETTLE_S)
    except TimeoutError:
        pytest.fail("these say nothing:\n" + "\n".join(silent_ones(bed, odd)[:5]))
    later = ["later-1", "later-2"]
    bed.make_claims(later, class_name="good")
    bed.until_ready("bucketclaims", later)
    for role, process in bed.processes.items():
        assert process.is_running
        assert process.pid == pids[role]
        assert "InternalError" not in bed.log_of(role)
        assert "Traceback" not in bed.log_of(role)
    assert not [e for e in bed.driver.journal() if e.call in IDS and "" in _ids(e.fields)]


IDS = (Call.DELETE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS)


def _ids(fields: dict[str, str]) -> list[str]:
    return [fields[key] for key in ("bucket_id", "account_id", "name") if key in fields]


REPLIES: dict[str, dict[str, Any]] = {
    "an id with line ends": {"reply_fields": {"bucket_id": f"id{LINE_ENDS}x"}},
    "an id of many scripts": {"reply_fields": {"bucket_id": "ид-🪣-\u202e-\ufeff"}},
    "an id of 900 KiB": {"reply_fields": {"bucket_id": "i" * 900_000}},
    "an id of control characters": {"reply_fields": {"bucket_id": "\x01\x1b[2J\x00\x7f"}},
    "an id that is a path": {"reply_fields": {"bucket_id": "../../secrets/x?y#z%2e"}},
    "a message of 900 KiB": {"code": "INTERNAL", "message": "m" * 900_000},
    "a message of control characters": {"code": "INVALID_ARGUMENT", "message": "\x01\x1b[2J\x00"},
    "a message of line ends": {"code": "INVALID_ARGUMENT", "message": LINE_ENDS * 50},
    "a message in many scripts": {"code": "INVALID_ARGUMENT", "message": "нет 🪣 \u202e x"},
    "a message of one space": {"code": "UNKNOWN", "message": " "},
    "a huge reply": {"reply": "oversize"},
    "no protobuf": {"reply": "malformed"},
}


def test_odd_replies_of_the_driver_end_in_words_and_stop_nobody(bed: Testbed, name: str) -> None:
    claims = {f"{name}-{number}": case for number, case in enumerate(REPLIES)}
    bed.make_classes(name)
    for claim, case in claims.items():
        bed.make_classes(claim, parameters={"case": claim})
        match = {"parameters.case": claim}
        bed.driver.set_rule(Call.CREATE_BUCKET, match=match, **REPLIES[case])
        bed.create("bucketclaims", claim_body(claim, class_name=claim))
        bed.create("bucketaccesses", access_body(claim, class_name=claim))
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])

    def silent() -> list[str]:
        return [c for c in claims if not condition(bed.get("bucketclaims", c)).get("message")]

    try:
        bed.until("each claim to say something", lambda: not silent())
    except TimeoutError:
        pytest.fail(f"silent: {[claims[c] for c in silent()]}")
    for claim in claims:
        told = condition(bed.get("bucketclaims", claim))
        assert len(told["message"]) <= 32768
        if told["status"] == "False":
            assert told["message"].isprintable(), claims[claim]
    for role, process in bed.processes.items():
        assert process.is_running
        assert "InternalError" not in bed.log_of(role)
    bed.driver.clear_rules()
    bed.delete_all("bucketaccesses", claims)
    bed.delete_all("bucketclaims", [*claims, name])
    bed.until_gone("bucketclaims", [*claims, name])
    bed.until_gone("bucketaccesses", claims)
