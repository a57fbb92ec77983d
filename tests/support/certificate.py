"""Certificates for tests, each signed by a CA that signs nothing else."""

from dataclasses import dataclass

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True)
class Pair:
    """PEM texts. `ca` is the certificate to trust."""

    ca: bytes
    certificate: bytes
    key: bytes


def new_pair(*, password: str = "") -> Pair:
    """For 127.0.0.1; the key is encrypted if there is a password."""
    ca = trustme.CA()
    made = ca.issue_cert("127.0.0.1")
    key = made.private_key_pem.bytes()
    if password:
        key = serialization.load_pem_private_key(key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    return Pair(ca.cert_pem.bytes(), made.cert_chain_pems[0].bytes(), key)
