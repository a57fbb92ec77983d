"""Reads the whole cluster for `cosi rollback-check`."""

from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key
from cosi_operator.cli.rollback import Seen
from cosi_operator.sdk.read import Reader


async def everything(reader: Reader) -> Seen | None:
    """All Buckets, claims and accesses, and which Secrets are missing; None if forbidden.

    Raises:
        NotInstalledError, ApiError, ApiSilent: as of `Reader.all`.
    """
    buckets = await reader.all(BUCKETS, decode_bucket)
    claims = await reader.all(BUCKET_CLAIMS, decode_bucket_claim)
    accesses = await reader.all(BUCKET_ACCESSES, decode_bucket_access)
    if buckets is None or claims is None or accesses is None:
        return None
    named = {Key(a.meta.namespace, a.secret_name) for a in accesses if a.granted}
    lost = {key for key in sorted(named) if key.name and not await reader.has_secret(key)}
    return Seen(buckets, claims, accesses, frozenset(lost))
