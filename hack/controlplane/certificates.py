"""The keys and certificates of one control plane, made new for each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

VALID_FOR = datetime.timedelta(days=7)
SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files. The CA's key is in none: it signs the certificates and is dropped."""

    ca: Path
    server: Path
    server_key: Path
    service_account_key: Path


def make_certificates(directory: Path, addresses: Sequence[str] = ()) -> Certificates:
    """Write a CA, a serving certificate, and a token-signing key.

    Args:
        directory: made when missing.
        addresses: for which the serving certificate is good besides 127.0.0.1 and localhost.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        ca=directory / "ca.crt",
        server=directory / "apiserver.crt",
        server_key=directory / "apiserver.key",
        service_account_key=directory / "service-account.key",
    )
    ca = trustme.CA()
    ends = datetime.datetime.now(datetime.UTC) + VALID_FOR
    server = ca.issue_cert(*SERVER_NAMES, *addresses, common_name="kube-apiserver", not_after=ends)
    made.ca.write_bytes(ca.cert_pem.bytes())
    made.server.write_bytes(server.cert_chain_pems[0].bytes())
    _write_key(made.server_key, server)
    # A key in the form that --service-account-key-file reads; its certificate is not used.
    _write_key(made.service_account_key, ca.issue_cert(common_name="service-account"))
    return made


def _write_key(path: Path, leaf: trustme.LeafCert) -> None:
    path.touch(mode=0o600)
    path.write_bytes(leaf.private_key_pem.bytes())
