"""The bodies and paths of the objects that a testbed makes, and a short way to read conditions."""

from typing import Any

API = "/apis/objectstorage.k8s.io/v1alpha1"
CLUSTER_KINDS = ("buckets", "bucketclasses", "bucketaccessclasses")
NAMESPACE = "team"
KINDS = {
    "bucketclasses": "BucketClass",
    "bucketaccessclasses": "BucketAccessClass",
    "bucketclaims": "BucketClaim",
    "buckets": "Bucket",
    "bucketaccesses": "BucketAccess",
}

type Json = dict[str, Any]


def path_of(plural: str, namespace: str, name: str = "") -> str:
    """The URL path of one object, or of a collection; core kinds too."""
    if plural in CLUSTER_KINDS:
        space = API
    elif plural in ("secrets", "events"):
        space = f"/api/v1/namespaces/{namespace}"
    else:
        space = f"{API}/namespaces/{namespace}"
    return f"{space}/{plural}" + (f"/{name}" if name else "")


def claim_body(
    name: str, *, class_name: str = "", existing: str = "", namespace: str = NAMESPACE
) -> Json:
    """A BucketClaim; what is "" is left out."""
    spec: Json = {"protocols": ["S3"]}
    if class_name:
        spec["bucketClassName"] = class_name
    if existing:
        spec["existingBucketName"] = existing
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def access_body(
    name: str,
    *,
    class_name: str,
    claim: str = "",
    secret: str = "",
    namespace: str = NAMESPACE,
    **more: str,
) -> Json:
    """A BucketAccess to the claim of the same name unless `claim` says another."""
    spec = {
        "bucketClaimName": claim or name,
        "bucketAccessClassName": class_name,
        "credentialsSecretName": secret or f"{name}-keys",
        "protocol": "S3",
        **more,
    }
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def condition(body: Json | None, kind: str = "Ready") -> Json:
    """One condition of an object; {} when it is not there."""
    found = ((body or {}).get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == kind), {})


def reasons(body: Json | None) -> dict[str, str]:
    """Type and reason of all conditions that are not a mere Ready=True."""
    found = ((body or {}).get("status") or {}).get("conditions") or []
    return {c["type"]: c["reason"] for c in found}


def typed(plural: str, body: Json) -> Json:
    """The body with apiVersion and kind, which the API server wants of a custom resource."""
    if plural not in KINDS:
        return body
    return {"apiVersion": "objectstorage.k8s.io/v1alpha1", "kind": KINDS[plural], **body}
