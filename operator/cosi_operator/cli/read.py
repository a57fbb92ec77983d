"""Reads the whole cluster for `cosi rollback-check`."""

from cosi_operator.api import v1alpha1
from cosi_operator.api.view import Key
from cosi_operator.cli.rollback import Seen
from cosi_operator.sdk.read import Reader


async def everything(reader: Reader) -> Seen | None:
    """All Buckets, claims and accesses, and which Secrets are missing; None if forbidden.

    Raises:
        NotInstalledError, ApiError, ApiSilent: as of `Reader.all`.
    """
    buckets = await reader.all(v1alpha1.BUCKETS, v1alpha1.decode_bucket)
    claims = await reader.all(v1alpha1.BUCKET_CLAIMS, v1alpha1.decode_bucket_claim)
    accesses = await reader.all(v1alpha1.BUCKET_ACCESSES, v1alpha1.decode_bucket_access)
    if buckets is None or claims is None or accesses is None:
        return None
    named = {Key(a.meta.namespace, a.secret_name) for a in accesses if a.granted}
    lost = {key for key in sorted(named) if key.name and not await reader.has_secret(key)}
    return Seen(buckets, claims, accesses, frozenset(lost))
