"""What must hold of every status that this project writes, for use in any test.

Rules: metav1.Condition as KEP-1623 has it, and the three types as kstatus reads them: Ready
always, exactly once; Reconciling and Stalled only while they are True, and never both. Each
function returns sentences about what is wrong; an empty list is good.
"""

import re
from collections.abc import Mapping
from typing import Any

type Json = Mapping[str, Any]

READY_FIELDS = {
    "BucketClaim": "bucketReady",
    "Bucket": "bucketReady",
    "BucketAccess": "accessGranted",
}
_CAMEL_CASE = re.compile(r"[A-Z][A-Za-z0-9]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_ABNORMAL = ("Reconciling", "Stalled")


def status_violations(body: Json, *, settled: bool = False) -> list[str]:
    """What is wrong with the status of one whole object.

    Args:
        settled: nothing is going on any more, so the object must have been judged as it now is.
    """
    name = f"{body['kind']} {body['metadata']['name']}"
    conditions = _conditions(body)
    if not conditions:
        return [f"{name}: settled without a word"] if settled else []
    found = [f"{name}: {problem}" for c in conditions for problem in _one(c, body)]
    types = [c["type"] for c in conditions]
    if len(types) != len(set(types)):
        found.append(f"{name}: a type stands twice in {types}")
    if types.count("Ready") != 1:
        found.append(f"{name}: Ready stands {types.count('Ready')} times")
    if all(kind in types for kind in _ABNORMAL):
        found.append(f"{name}: Reconciling and Stalled at once")
    found += [f"{name}: {problem}" for problem in _ready(body, conditions)]
    if settled:
        generation = body["metadata"].get("generation", 0)
        observed = {c["observedGeneration"] for c in conditions}
        if observed != {generation}:
            found.append(f"{name}: conditions of generation {observed}, now is {generation}")
    return found


def _one(condition: Json, body: Json) -> list[str]:
    kind = condition["type"]
    found = []
    if condition["status"] not in ("True", "False", "Unknown"):
        found.append(f"{kind} has status {condition['status']!r}")
    if kind in _ABNORMAL and condition["status"] != "True":
        found.append(f"{kind} stands though it is {condition['status']}")
    if not _CAMEL_CASE.fullmatch(condition["reason"]):
        found.append(f"{kind} has reason {condition['reason']!r}")
    if not condition["message"]:
        found.append(f"{kind} has no message")
    if len(condition["message"]) > 32768:
        found.append(f"{kind} has a message of {len(condition['message'])} characters")
    if not _TIME.fullmatch(condition["lastTransitionTime"]):
        found.append(f"{kind} has time {condition['lastTransitionTime']!r}")
    if condition["observedGeneration"] > body["metadata"].get("generation", 0):
        found.append(f"{kind} was made on a generation that never was")
    return found


def _ready(body: Json, conditions: list[Json]) -> list[str]:
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None:
        return []
    others = [c["type"] for c in conditions if c["type"] in _ABNORMAL]
    field = READY_FIELDS[body["kind"]]
    found = []
    if ready["status"] == "True" and others:
        found.append(f"Ready, and yet {others}")
    if ready["status"] == "False" and not others:
        found.append("not Ready, and neither Reconciling nor Stalled")
    if ready["status"] == "True" and not (body.get("status") or {}).get(field):
        found.append(f"Ready, and yet {field} is not true")
    return found


def transition_violations(before: Json, after: Json) -> list[str]:
    """What is wrong with the step from one status to the next, of the same object."""
    old = {c["type"]: c for c in _conditions(before)}
    name = f"{after['kind']} {after['metadata']['name']}"
    found = []
    for condition in _conditions(after):
        was = old.get(condition["type"])
        if was is None:
            continue
        moved = was["lastTransitionTime"] != condition["lastTransitionTime"]
        changed = was["status"] != condition["status"]
        if moved and not changed:
            found.append(f"{name}: the time of {condition['type']} moved without its status")
        if was["observedGeneration"] > condition["observedGeneration"]:
            found.append(f"{name}: {condition['type']} went back to an older generation")
    return found


def _conditions(body: Json) -> list[Json]:
    return list((body.get("status") or {}).get("conditions") or [])
