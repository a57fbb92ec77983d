"""What a process of the operator says of itself at /metrics, asked at the address of its Pod."""

import re
import urllib.request
from typing import Any

TIMEOUT_S = 10.0
_LINE = re.compile(r"^(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)


def total(pod: dict[str, Any], port: int, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels.

    Raises:
        LookupError: there is none, so a name or a label is wrong.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{pod['status']['podIP']}:{port}/metrics"
    with opener.open(url, timeout=TIMEOUT_S) as answer:
        text = answer.read().decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    found = [
        float(line["value"])
        for line in _LINE.finditer(text)
        if line["name"] == name and all(word in line["labels"].split(",") for word in wanted)
    ]
    if not found:
        raise LookupError(f"{url} has no {name} with {wanted}")
    return sum(found)
