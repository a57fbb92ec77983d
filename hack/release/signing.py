"""Signatures by a key, with cosign and without any service: nothing is sent to a transparency log.

The password of the key is read from COSIGN_PASSWORD. `key` is whatever cosign takes: a file, or the
address of a key in a key management service.
"""

import base64
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from controlplane.build import ensure, find
from release.tools import run

BUNDLE = ".sigstore.json"
_NO_SERVICE = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {},
    "tsaConfig": {},
}


class Signer:
    """Signs with one key."""

    def __init__(self, key: str, config: Path) -> None:
        """`config` is cosign's list of services, which is empty; see `signer`."""
        self._key = key
        self._config = config

    def _cosign(self, command: str, *words: str | Path) -> str:
        return run(
            find("cosign"), command, f"--key={self._key}", f"--signing-config={self._config}",
            "--yes", *words,
        )  # fmt: skip

    def public_key(self) -> str:
        """The key that verifies, as PEM."""
        return run(find("cosign"), "public-key", f"--key={self._key}")

    def sign_file(self, file: Path) -> None:
        """Write FILE.sigstore.json for cosign, and FILE.sig for openssl."""
        bundle = file.with_name(file.name + BUNDLE)
        self._cosign("sign-blob", f"--bundle={bundle}", file)
        signature = json.loads(bundle.read_text())["messageSignature"]["signature"]
        file.with_name(file.name + ".sig").write_bytes(base64.b64decode(signature))

    def sign_statement(self, file: Path) -> None:
        """Write FILE.sigstore.json, which holds the in-toto statement and its signature."""
        bundle = file.with_name(file.name + BUNDLE)
        self._cosign("attest-blob", f"--statement={file}", f"--bundle={bundle}")

    def sign_artifact(self, address: str, *, recursive: bool = False) -> None:
        """Put a signature beside an image or a chart: registry/name@sha256:..."""
        self._cosign("sign", *(["--recursive"] if recursive else []), address)

    def attest(self, address: str, kind: str, predicate: Path) -> None:
        """Put a signed statement beside an image; `kind` as cosign names it."""
        self._cosign("attest", f"--type={kind}", f"--predicate={predicate}", address)


@contextmanager
def signer(key: str) -> Iterator[Signer]:
    """A signer; builds cosign on the first call, which takes about three minutes."""
    ensure(["cosign"])
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "services.json")
        config.write_text(json.dumps(_NO_SERVICE))
        yield Signer(key, config)


def signed_names(names: Sequence[str]) -> set[str]:
    """The names of the files that signing adds to a release."""
    return {"cosign.pub", *(name + end for name in names for end in (BUNDLE, ".sig"))}
