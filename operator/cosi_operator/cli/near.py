"""What to say about a name that does not exist: the likely meaning, and how to list objects."""

import difflib

from cosi_operator.api.decode import decode_bucket, decode_bucket_access, decode_bucket_claim
from cosi_operator.api.resources import BUCKET_ACCESSES, BUCKET_CLAIMS, BUCKETS
from cosi_operator.api.view import Key, is_path_segment
from cosi_operator.kube.errors import ApiError, ApiSilent
from cosi_operator.scrub import shown_name
from cosi_operator.sdk.read import Reader

SHOWN = 3
WORDS = {"BucketClaim": "bucketclaim", "BucketAccess": "bucketaccess", "Bucket": "bucket"}


async def not_found(reader: Reader, kind: str, key: Key) -> str:
    """A sentence that names objects with nearly this name, as far as the caller may list them.

    Raises:
        NotInstalledError: the cluster does not serve COSI's API at all.
    """
    if not is_path_segment(key.name):
        return f"{kind} {_shown(key)}: no object can have this name"
    found = await names_of(reader, key.namespace)
    likely = [f"{word}/{name}" for word, name in found if name == key.name]
    close = difflib.get_close_matches(key.name, [name for _, name in found], n=SHOWN)
    likely += [f"{word}/{name}" for near in close for word, name in found if name == near]
    shown = list(dict.fromkeys(each for each in likely if each != f"{WORDS[kind]}/{key.name}"))
    sentence = f"{kind} {key}: there is no such object"
    if shown:
        return f"{sentence}; did you mean {' or '.join(shown[:SHOWN])}?"
    return f"{sentence}; to list those that are not ready, run: cosi status -A"


def _shown(key: Key) -> Key:
    return Key(shown_name(key.namespace), shown_name(key.name))


async def names_of(reader: Reader, namespace: str) -> list[tuple[str, str]]:
    """The claims and accesses of a namespace, or all Buckets, as far as they may be listed.

    Returns:
        For each the kind, as it is written on the command line, and the name.
    Raises:
        NotInstalledError: the cluster does not serve COSI's API at all.
    """
    found: list[tuple[str, str]] = []
    try:
        if not namespace:
            buckets = await reader.all(BUCKETS, decode_bucket)
            return [("bucket", bucket.meta.name) for bucket in buckets or ()]
        claims = await reader.all(BUCKET_CLAIMS, decode_bucket_claim, namespace=namespace)
        found += [("bucketclaim", claim.meta.name) for claim in claims or ()]
        accesses = await reader.all(BUCKET_ACCESSES, decode_bucket_access, namespace=namespace)
        found += [("bucketaccess", access.meta.name) for access in accesses or ()]
    except (ApiError, ApiSilent):  # only a hint is lost
        return found
    return found
