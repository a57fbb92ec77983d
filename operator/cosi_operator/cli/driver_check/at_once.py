"""Grants and revokes many accounts at the same time, and tries their keys in between.

A driver that edits a shared document without a lock loses changes here, though it answers OK.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import anyio

from cosi_operator.cli.driver_check.seen import CallResult, KeyTrial

type Place = tuple[str, str]
"""A bucket's id and the account's name to grant in it."""


@dataclass(frozen=True, slots=True)
class Calls:
    """How to do it. Each is called for many at the same time.

    grant: makes one account. revoke: takes one away; None when it may not be ours. answer: what S3
    says to a Grant's key, with whether it should be accepted; None when it can't be tried.
    """

    grant: Callable[[str, str], Awaitable[CallResult]]
    revoke: Callable[[str, str], Awaitable[CallResult | None]]
    answer: Callable[[str, CallResult, bool], Awaitable[str | None]]


async def grant_and_revoke(calls: Calls, places: Sequence[Place]) -> tuple[KeyTrial, ...]:
    """All Grants at the same time, then all keys, then all Revokes at the same time, all keys."""
    trials: dict[int, KeyTrial] = {}

    async def grant(number: int, bucket_id: str, name: str) -> None:
        trials[number] = KeyTrial(await calls.grant(bucket_id, name))

    async def use(number: int, bucket_id: str, _name: str) -> None:
        answer = await calls.answer(bucket_id, trials[number].granted, True)
        trials[number] = replace(trials[number], works=answer)

    async def revoke(number: int, bucket_id: str, _name: str) -> None:
        granted = trials[number].granted
        if granted.ok and granted.reply:
            revoked = await calls.revoke(bucket_id, granted.reply)
            trials[number] = replace(trials[number], revoked=revoked)

    async def use_again(number: int, bucket_id: str, _name: str) -> None:
        trial = trials[number]
        # A key that never worked proves nothing by being refused.
        if trial.revoked is not None and trial.revoked.ok and trial.works == "":
            after = await calls.answer(bucket_id, trial.granted, False)
            trials[number] = replace(trial, after=after)

    for step in (grant, use, revoke, use_again):
        async with anyio.create_task_group() as tasks:
            for number, (bucket_id, name) in enumerate(places):
                tasks.start_soon(step, number, bucket_id, name)
    return tuple(trial for _, trial in sorted(trials.items()))
