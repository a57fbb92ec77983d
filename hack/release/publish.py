"""Push a built release to its registry: image and charts, and beside each its signature."""

import json
import tarfile
import tempfile
from pathlib import Path

from controlplane.build import ensure, find
from release.build import DIGEST, Release, predicate, unsigned_names
from release.packages import CHARTS
from release.signing import Signer, signer
from release.tools import ReleaseError, run


def publish(release: Release, built: Path, key: str) -> list[str]:
    """Push and sign; return the addresses of what was pushed, each with its digest.

    Raises:
        ReleaseError: the folder is not what `make release` wrote, or a push failed.
    """
    unsigned_names(built)
    if not key:
        raise ReleaseError("a published release is signed: name the key, KEY=cosign.key")
    ensure(["crane", "helm"])
    with tempfile.TemporaryDirectory() as name, signer(key) as signing:
        folder = Path(name)
        pushed = [_push_image(release, built, folder, signing)]
        for chart in CHARTS:
            package = built / f"{chart}-{release.version}.tgz"
            run(find("helm"), "push", package, f"oci://{release.registry}/charts")
            address = _with_digest(f"{release.registry}/charts/{chart}", release.version)
            signing.sign_artifact(address)
            pushed.append(address)
    return pushed


def _push_image(release: Release, built: Path, folder: Path, signing: Signer) -> str:
    layout = folder / "layout"
    with tarfile.open(built / release.archive) as archive:
        archive.extractall(layout, filter="data")
    run(find("crane"), "push", layout, release.image)
    repository = release.image.rpartition(":")[0]
    address = _with_digest(repository, release.version)
    digest = (built / DIGEST).read_text().strip()
    if not address.endswith(digest):
        raise ReleaseError(f"the registry has {address}, not {digest}")
    signing.sign_artifact(address, recursive=True)
    provenance = folder / "provenance.json"
    provenance.write_text(predicate(built))
    signing.attest(address, "slsaprovenance1", provenance)
    blob = layout / "blobs" / digest.replace(":", "/")
    for entry in json.loads(blob.read_bytes())["manifests"]:
        one = f"{repository}@{entry['digest']}"
        sbom = built / release.sbom(entry["platform"]["architecture"])
        signing.attest(one, "cyclonedx", sbom)
    return address


def _with_digest(repository: str, tag: str) -> str:
    return f"{repository}@{run(find('crane'), 'digest', f'{repository}:{tag}').strip()}"
