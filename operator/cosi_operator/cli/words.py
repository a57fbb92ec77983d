"""Single words of the command line: kinds and names, calls and codes, pairs and seconds."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from cosi_operator.api.view import is_path_segment
from cosi_operator.classify import CONSERVATIVE
from cosi_operator.outcome import Call, Code
from cosi_operator.scrub import NAME_LIMIT, cut

GROUP = "objectstorage.k8s.io"
# Kinds as kubectl takes them and, short, as people write them; the commands know one name each.
KINDS = {
    **dict.fromkeys(("bucketclaim", "bucketclaims", "bc"), "bucketclaim"),
    **dict.fromkeys(("bucketaccess", "bucketaccesses", "ba"), "bucketaccess"),
    **dict.fromkeys(("bucket", "buckets"), "bucket"),
}
# DriverGetInfo belongs to no object, so no reconcile fails; the driver counts as absent instead.
CALLS = (Call.CREATE_BUCKET, Call.DELETE_BUCKET, Call.GRANT_ACCESS, Call.REVOKE_ACCESS)


@dataclass(frozen=True, slots=True)
class Target:
    """What NAME on the command line means: `bucketclaim`, `bucketaccess` or `bucket`."""

    kind: str
    name: str


def _quoted(text: str) -> str:
    return repr(cut(text, NAME_LIMIT))


def kind_of(word: str) -> str | None:
    """The kind with this name, which can carry its group; None for a word that is not a kind."""
    return KINDS.get(word.lower().removesuffix(f".{GROUP}"))


def target_of(*allowed: str) -> Callable[[str], Target]:
    """The reader of NAME, or KIND/NAME with one of the allowed kinds; the first is the usual one.

    A kind can carry its group, because `-o name` prints it so.
    """
    usual = allowed[0]

    def target(text: str) -> Target:
        word, slash, name = text.rpartition("/")
        kind = kind_of(word) if slash else usual
        if not name or kind not in allowed:
            raise argparse.ArgumentTypeError(
                f"{_quoted(text)}: write NAME for a {usual}, or KIND/NAME with one of"
                f" {', '.join(allowed)}"
            )
        return Target(kind, name)

    return target


def namespace(text: str) -> str:
    """A name that a namespace can have; "" means the context's."""
    if text and not is_path_segment(text):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not a name of a namespace")
    return text


def address(text: str) -> str:
    """A socket, as gRPC names it."""
    from cosi_operator.driver.channel import DriverChannel  # late: no other command needs it

    try:
        DriverChannel(text)  # connects to nothing
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; for instance unix:///run/cosi.sock") from None
    return text


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    return key, value


def seconds(text: str) -> float:
    """Seconds, with or without an s."""
    try:
        found = float(text.removesuffix("s"))
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds, above 0")
    return found


def call(text: str) -> Call:
    """One of the four calls, in any case."""
    for each in CALLS:
        if text.lower() == each.lower():
            return each
    raise argparse.ArgumentTypeError(f"{text!r} is not a call; allowed: {', '.join(CALLS)}")


def code(text: str) -> Code:
    """A code of a failure, in any case."""
    for each in CONSERVATIVE:
        if text.lower().replace("-", "_") == each.name.lower():
            return each
    names = ", ".join(each.name for each in CONSERVATIVE)
    raise argparse.ArgumentTypeError(f"{text!r} is not a code of a failure; allowed: {names}")
