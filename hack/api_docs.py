"""Makes docs/api.md from the CRDs in deploy/crds; prints it."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from crds import ADDED, OURS, load

ORDER = ("BucketClaim", "BucketAccess", "Bucket", "BucketClass", "BucketAccessClass")
NOT_TOLD = frozenset({"apiVersion", "kind", "metadata"})
HEAD = """# API reference

`objectstorage.k8s.io/v1alpha1`, as the CRDs in `deploy/crds` define it; `kubectl explain` shows
the same. Fields marked + are this project's own: on a cluster with upstream's CRDs they are
dropped, and the annotation `cosi.objectstorage.k8s.io/status` holds them instead.

<!-- Generated from deploy/crds by hack/update-api-docs: do not edit. -->
"""

type Schema = Mapping[str, Any]


def document() -> str:
    """The whole page."""
    crds = load(OURS)
    return "\n".join([HEAD, *(_kind(kind, crds[kind]["spec"]) for kind in ORDER)])


def _kind(kind: str, spec: Schema) -> str:
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    scope = "in a namespace" if spec["scope"] == "Namespaced" else "in the whole cluster"
    rows = "\n".join(_rows(schema, "", own=False))
    return (
        f"## {kind}\n\n{schema['description']} One name {scope}; `kubectl get"
        f" {spec['names']['plural']}`.\n\n| field | type | what it is |\n|---|---|---|\n{rows}\n"
    )


def _rows(schema: Schema, path: str, *, own: bool) -> Iterator[str]:
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        if not path and name in NOT_TOLD:
            continue
        where = f"{path}.{name}".lstrip(".")
        ours = own or (path == "status" and name in ADDED)
        text = " ".join(str(inner.get("description", "")).split()).replace("|", "\\|")
        must = " Required." if name in required else ""
        yield f"| `{where}`{' +' if ours else ''} | {_type(inner)} | {text}{must} |"
        yield from _rows(inner, where, own=ours)
        if inner.get("type") == "array":
            yield from _rows(inner["items"], f"{where}[]", own=ours)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            return f"map to {_type(schema['additionalProperties'])}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case other:
            return str(other)


if __name__ == "__main__":
    sys.stdout.write(document())
