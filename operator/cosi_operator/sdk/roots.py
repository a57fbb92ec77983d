"""The TLS settings of a connection, with the roots that kubectl would trust."""

import os
import ssl
import sys
from pathlib import Path

import httpx

from cosi_operator.kube.auth import load_client_certificate
from cosi_operator.kube.kubeconfig_merge import KubeconfigError


def tls_for(
    server: str, *, ca: str = "", insecure: bool = False, pair: tuple[bytes, bytes] | None = None
) -> ssl.SSLContext:
    """The settings for one server.

    Args:
        server: its URL.
        ca: the file with the certificates that are trusted; "" for those of the machine.
        insecure: trust every server.
        pair: the certificate of the client, and its key.
    Raises:
        KubeconfigError: a variable names what can't be read. OSError: `ca` or `pair` can't be
        used.
    """
    if not server.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nothing, if there is a redirect
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca:
        context = ssl.create_default_context(cafile=ca)
    else:
        context = public_roots()
    # As in the operator: the CAs of many clusters lack what Python 3.13 requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if pair is not None:
        load_client_certificate(context, *pair)
    return context


def public_roots() -> ssl.SSLContext:
    """What certifies a server whose CA no kubeconfig names: the roots of the machine, as for Go.

    Raises:
        KubeconfigError: a variable names what can't be read.
    """
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if not (path := os.environ.get(variable)):
            continue
        try:
            if variable == "SSL_CERT_FILE":
                return ssl.create_default_context(cafile=path)
            return ssl.create_default_context(capath=path)
        except (OSError, ValueError) as error:  # ValueError: NUL in the name
            problem = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise KubeconfigError(
            f"{variable}: {path} can't be read: {problem}; name PEM certificates, or unset it"
        )
    if _has_roots():
        return ssl.create_default_context()
    return httpx.create_ssl_context(trust_env=False)  # those that certifi brings


def _has_roots() -> bool:
    paths = ssl.get_default_verify_paths()
    if sys.platform == "win32" or paths.cafile:
        return True
    try:
        return bool(paths.capath) and any(Path(paths.capath).iterdir())
    except OSError:
        return False
