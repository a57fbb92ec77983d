"""Makes deploy/gitops/argocd-cm.yaml from health.lua; prints it."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "gitops"
KINDS = ("BucketClaim", "BucketAccess", "Bucket")


def patch(lua: str) -> str:
    """The ConfigMap patch, with the script once for each kind."""
    lines = [
        "# Generated from health.lua by hack/update-gitops: do not edit.",
        "data:",
        "  resource.customizations: |",
    ]
    for kind in KINDS:
        lines += [f"    objectstorage.k8s.io/{kind}:", "      health.lua: |"]
        lines += [f"        {line}".rstrip() for line in lua.splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(patch((FOLDER / "health.lua").read_text()))
