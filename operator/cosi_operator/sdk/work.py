"""What both flavours of the classes do, with one client: read, wait, explain, fetch credentials."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kr8s
import msgspec

from cosi_operator.api import core
from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import BucketAccess, Key, Resource, is_path_segment
from cosi_operator.clock import Clock
from cosi_operator.kube.errors import NotFound
from cosi_operator.scrub import shown_name
from cosi_operator.sdk.answer import decoded
from cosi_operator.sdk.client import Client
from cosi_operator.sdk.credentials import Credentials, is_made_for
from cosi_operator.sdk.diagnosis import Reported, chain, condition, is_ready
from cosi_operator.sdk.errors import CredentialsError, NotReadyError, StalledError
from cosi_operator.sdk.explanation import Explanation
from cosi_operator.sdk.read import Reader

decode_object = msgspec.json.Decoder(dict[str, Any]).decode
WAIT_TIMEOUT_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the three kinds that have a status."""

    resource: Resource
    decode: Callable[[bytes], Reported]


CLAIM = Kind(BUCKET_CLAIMS, decode_bucket_claim)
ACCESS = Kind(BUCKET_ACCESSES, decode_bucket_access)
BUCKET = Kind(BUCKETS, decode_bucket)


async def read(client: Client, resource: Resource, key: Key) -> bytes:
    """The object's JSON.

    Raises:
        kr8s.NotFoundError: it does not exist. ApiError, ApiSilent: as of the client.
    """
    try:
        return await client.get(resource, key)
    except NotFound:
        shown = Key(shown_name(key.namespace), shown_name(key.name))
        raise kr8s.NotFoundError(f"{resource.kind} {shown} does not exist") from None


async def read_object(client: Client, resource: Resource, key: Key) -> dict[str, Any]:
    """The same, decoded."""
    return decoded(f"{resource.kind} {key}", await read(client, resource, key), decode_object)


async def wait_ready(
    client: Client, kind: Kind, key: Key, *, timeout_s: float | None, clock: Clock
) -> dict[str, Any]:
    """Read the object again and again until it is ready; return it then.

    kr8s's own watch is not used: an expired resourceVersion makes it repeat without a pause.

    Raises:
        StalledError: the operator does not retry. NotReadyError: `timeout_s` has passed; None
        means no limit.
        kr8s.NotFoundError: the object does not exist. ApiError, ApiSilent: as of the client.
    """
    give_up_at = clock.monotonic() + (math.inf if timeout_s is None else timeout_s)
    pause_s = FIRST_PAUSE_S
    while True:
        raw = await read(client, kind.resource, key)
        view = decoded(f"{kind.resource.kind} {key}", raw, kind.decode)
        if is_ready(view) and not view.meta.deleting:
            return decoded(f"{kind.resource.kind} {key}", raw, decode_object)
        if _is_stalled(view):
            raise StalledError(_in_words(view))
        left_s = give_up_at - clock.monotonic()
        if not left_s > 0:  # NaN (not a number) ends the wait too
            raise NotReadyError(f"{_in_words(view)} (waited {timeout_s:g} s)")
        await clock.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def _is_stalled(view: Reported) -> bool:
    stalled = condition(view, "Stalled")
    return (
        stalled is not None
        and stalled.status == "True"
        # A condition about an older spec says nothing about the present one.
        and stalled.observed_generation in (0, view.meta.generation)
    )


def _in_words(view: Reported) -> str:
    ready = condition(view, "Ready")
    what = f"{type(view).__name__} {view.meta.key}"
    if ready is None:
        return f"{what} is not ready: the operator has written no condition yet."
    return f"{what} is not ready ({ready.reason}): {ready.message}"


async def why_claim(client: Client, key: Key) -> Explanation:
    """The chain of a claim and of all accesses that name it."""
    await read(client, BUCKET_CLAIMS, key)
    return Explanation(f"BucketClaim {key}", tuple(chain(await Reader(client).claim_facts(key))))


async def why_access(client: Client, key: Key) -> Explanation:
    """The chain of one access."""
    access = await _access(client, key)
    return Explanation(
        f"BucketAccess {key}", tuple(chain(await Reader(client).access_facts(access)))
    )


def _without_secret(access: BucketAccess) -> str:
    secret = f"Secret {access.meta.namespace}/{shown_name(access.secret_name)}"
    if not is_path_segment(access.secret_name):
        return (
            f"{secret} does not exist: no Secret can have this name. Create a BucketAccess with"
            " another spec.credentialsSecretName."
        )
    if not is_ready(access):
        return f"{secret} does not exist. {_in_words(access)}"
    return (
        f"{secret} was deleted. To have new keys, run: cosi retry"
        f" bucketaccess/{access.meta.name} -n {access.meta.namespace}"
    )


def _of_another(access: BucketAccess) -> str:
    key = access.meta.key
    secret = f"Secret {key.namespace}/{shown_name(access.secret_name)}"
    if not is_ready(access):
        return f"{secret} was not created for BucketAccess {key}. {_in_words(access)}"
    # The operator reads the Secret of a granted access only when something asks for a new run.
    return (
        f"{secret} was not created for BucketAccess {key}. Create a BucketAccess with another"
        " spec.credentialsSecretName, or delete this Secret and run: cosi retry"
        f" bucketaccess/{key.name} -n {key.namespace}"
    )


async def _access(client: Client, key: Key) -> BucketAccess:
    raw = await read(client, BUCKET_ACCESSES, key)
    return decoded(f"BucketAccess {key}", raw, decode_bucket_access)


async def credentials(client: Client, key: Key) -> Credentials:
    """The credentials in the Secret that an access names.

    Raises:
        CredentialsError: the access has no Secret yet, or the Secret belongs to another object, or
        it can't be used.
        kr8s.NotFoundError: no such access. ApiError, ApiSilent: as of the client.
    """
    access = await _access(client, key)
    name = access.secret_name
    try:
        raw = await client.get(core.SECRETS, Key(key.namespace, name))
    except NotFound:
        raise CredentialsError(_without_secret(access)) from None
    if not is_ready(access) and not access.account_id:  # a rotation keeps the account
        raise CredentialsError(_in_words(access))
    secret = decoded(f"Secret {key.namespace}/{name}", raw, decode_object)
    keys = Credentials.from_secret(secret)
    if not is_made_for(secret, access.meta.uid):
        raise CredentialsError(_of_another(access))
    return keys
