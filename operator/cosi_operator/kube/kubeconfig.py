"""Reads the address of the API server and the credentials: kubeconfig files or a service account.

The order: the files named by the caller, else by KUBECONFIG, else the pod's service account,
else ~/.kube/config. How several files become one: kubeconfig_merge.py.
"""

import base64
import binascii
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

import anyio

from cosi_operator.api.view import is_path_segment
from cosi_operator.clock import Clock
from cosi_operator.kube.auth import (
    EXEC_API_VERSIONS,
    Credentials,
    ExecCredentials,
    ExecPlugin,
    FixedToken,
    TokenFile,
    is_token,
    load_client_certificate,
)
from cosi_operator.kube.kubeconfig_file import Cluster, User
from cosi_operator.kube.kubeconfig_merge import Chosen as Chosen
from cosi_operator.kube.kubeconfig_merge import KubeconfigError as KubeconfigError
from cosi_operator.kube.kubeconfig_merge import choose
from cosi_operator.kube.proxy import lower_scheme, proxy_for
from cosi_operator.scrub import shown_name

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. `kubeconfig` is the flag: one path, or several joined as in KUBECONFIG.

    `context` overrides the files' current-context; a pod's service account has no contexts.
    `quiet`: log nothing, so that structlog is not loaded, and `cosi` starts faster.
    """

    kubeconfig: str | None
    environ: Mapping[str, str]
    service_account: Path = SERVICE_ACCOUNT
    context: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """How to connect to one server. `server` has no trailing slash; `tls` is None for HTTP."""

    server: str
    namespace: str
    credentials: Credentials
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may contain a password


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The pod's own account is used, and no kubeconfig file."""

    folder: Path


async def load(sources: Sources, clock: Clock) -> Connection:
    """Find and read the configuration.

    Raises:
        KubeconfigError: no configuration was found, or the one that was found can't be used.
    """
    match await find(sources):
        case ServiceAccount():
            return in_cluster(sources, clock)
        case Chosen() as chosen:
            return connection_of(chosen, sources, clock)


async def find(sources: Sources) -> Chosen | ServiceAccount:
    """Which configuration applies; the files are read and merged.

    Raises:
        KubeconfigError: none was found, with every place that was searched, or a file is wrong.
    """
    if sources.kubeconfig:
        return await choose("--kubeconfig", sources.kubeconfig, sources.context)
    if named := sources.environ.get("KUBECONFIG"):
        return await choose("KUBECONFIG", named, sources.context)
    in_pod = bool(sources.environ.get("KUBERNETES_SERVICE_HOST"))
    if in_pod and not sources.context and await anyio.Path(sources.service_account).is_dir():
        return ServiceAccount(sources.service_account)
    home = sources.environ.get("HOME", "")
    default = Path(home, ".kube", "config")
    if home and await anyio.Path(default).is_file():
        return await choose("~/.kube/config", str(default), sources.context)
    searched = [
        "--kubeconfig and KUBECONFIG are not set",
        f"{default} does not exist" if home else "HOME is not set, so there is no ~/.kube/config",
        f"{sources.service_account} is not used because a context is named"
        if in_pod and sources.context
        else f"{sources.service_account} does not exist"
        if in_pod
        else "KUBERNETES_SERVICE_HOST is not set, so this is not a pod",
    ]
    raise KubeconfigError(
        f"no configuration: {'; '.join(searched)}. Pass --kubeconfig, set KUBECONFIG, or run in a"
        " pod whose service account token is mounted (automountServiceAccountToken)"
    )


def in_cluster(sources: Sources, clock: Clock) -> Connection:
    """What a client in a pod needs, from its service account.

    Raises:
        KubeconfigError: the server's address or the cluster's CA can't be used.
    """
    host = sources.environ["KUBERNETES_SERVICE_HOST"]
    port = sources.environ.get("KUBERNETES_SERVICE_PORT", "443")
    ca = sources.service_account / "ca.crt"
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    parts = _url(server)
    if parts is None or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        raise KubeconfigError(
            f"KUBERNETES_SERVICE_HOST={host} and KUBERNETES_SERVICE_PORT={port} must be a host and"
            " a port; the kubelet sets them"
        )
    return Connection(
        server=server,
        namespace=service_account_namespace(sources.service_account),
        credentials=TokenFile(sources.service_account / "token", clock),
        tls=_tls(f"{ca}", _read_bytes(ca, "the cluster's CA"), insecure=False),
        proxy=_proxy_from_environment(server, sources),
    )


def service_account_namespace(folder: Path) -> str:
    """The namespace of the pod, from the files of its service account; default if none is there.

    Raises:
        KubeconfigError: the file holds something else.
    """
    file = folder / "namespace"
    try:
        name = file.read_text(encoding="utf-8", errors="backslashreplace").strip()
    except OSError:
        return "default"
    if name and not is_path_segment(name):
        _refuse(
            f"{file}",
            f"'{shown_name(name)}' is not a name of a namespace; mount the pod's own service"
            " account token (automountServiceAccountToken), or pass --kubeconfig",
        )
    return name or "default"


def connection_of(chosen: Chosen, sources: Sources, clock: Clock) -> Connection:
    """What a client needs, from a context of kubeconfig files; reads the files that it names.

    Raises:
        KubeconfigError: a field can't be used.
    """
    cluster, cluster_path, at_cluster = chosen.cluster, chosen.cluster_path, chosen.at_cluster
    user, user_path, at_user = chosen.user, chosen.user_path, chosen.at_user
    server = _server(cluster.server, at_cluster)
    tls = None
    if server.startswith("https:"):
        ca = _bytes(
            cluster.certificate_authority_data,
            cluster.certificate_authority,
            cluster_path,
            f"{at_cluster}.certificate-authority",
        )
        insecure = bool(cluster.insecure_skip_tls_verify)
        tls = _tls(f"{at_cluster}.certificate-authority", ca, insecure=insecure)
        if insecure:
            _log(
                sources, "warning", "tls_not_verified", server=server, kubeconfig=str(cluster_path)
            )
        _client_certificate(tls, user, user_path, at_user)
    return Connection(
        server=server,
        namespace=chosen.namespace,
        credentials=_credentials(user, user_path, at_user, (clock, tls, cluster)),
        tls=tls,
        tls_server_name=_tls_server_name(cluster.tls_server_name, at_cluster),
        proxy=_proxy(cluster.proxy_url, at_cluster) or _proxy_from_environment(server, sources),
    )


def _server(server: str, where: str) -> str:
    parts = _url(server)
    if parts is None or parts.username or parts.query or parts.fragment:
        raise KubeconfigError(f"{where}.server must be a URL as https://host:port")
    return lower_scheme(server).rstrip("/")


def _proxy(proxy: str | None, where: str) -> str | None:
    if proxy and _url(proxy) is None:
        _refuse(f"{where}.proxy-url", "only http and https proxies are supported, as URLs")
    return lower_scheme(proxy) if proxy else None


def _proxy_from_environment(server: str, sources: Sources) -> str | None:
    """The proxy from HTTPS_PROXY and similar variables. A cluster's proxy-url takes precedence."""
    found = proxy_for(server, sources.environ)
    if found is None:
        return None
    if found.url.startswith(("socks5:", "socks5h:")):  # client-go supports these
        _refuse(found.variable, "only http and https proxies are supported, not SOCKS")
    if _url(found.url) is None:  # client-go ignores it without a message
        _log(
            sources,
            "warning",
            "proxy_variable_ignored",
            variable=found.variable,
            error="it is not a URL",
        )
        return None
    _log(sources, "info", "api_server_behind_proxy", variable=found.variable)
    return found.url


def _url(text: str) -> SplitResult | None:
    """The parts of a valid http or https URL; None for any other text."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # a port above 65535, or brackets around an invalid address
        return None
    is_host = ":" in host or _HOST_NAME.fullmatch(host)  # urlsplit has validated brackets
    usable = parts.scheme in ("http", "https") and is_host and is_token(text)
    return parts if usable else None


def _tls_server_name(name: str | None, where: str) -> str | None:
    if name and not _HOST_NAME.fullmatch(name):
        _refuse(f"{where}.tls-server-name", "it must be a host name")
    return name or None


def _credentials(
    user: User, path: Path, where: str, context: tuple[Clock, ssl.SSLContext | None, Cluster]
) -> Credentials:
    clock, tls, cluster = context
    if user.username:
        _refuse(
            f"{where}.username", "Kubernetes 1.19 removed basic authentication; use a token instead"
        )
    if user.auth_provider is not None:
        _refuse(f"{where}.auth-provider", "Kubernetes 1.26 removed this field; use an exec plugin")
    for name, value in (
        ("as", user.impersonate or None),
        ("as-groups", user.impersonate_groups or None),  # kubectl accepts these only with `as`
        ("as-uid", user.impersonate_uid or None),
        ("as-user-extra", user.impersonate_extra or None),
    ):
        if value is not None:
            _refuse(f"{where}.{name}", "impersonation is not supported; use that account directly")
    if user.token_file:
        return TokenFile(path.parent / user.token_file, clock)
    if user.token:
        if not is_token(user.token):
            _refuse(f"{where}.token", "it has characters that are invalid in a header; replace it")
        return FixedToken(user.token)
    if user.exec is None:
        return FixedToken()
    plugin = user.exec
    if plugin.api_version not in EXEC_API_VERSIONS:
        _refuse(f"{where}.exec.apiVersion", f"use one of {', '.join(EXEC_API_VERSIONS)}")
    # A name without a slash is searched in PATH; a path is relative to the kubeconfig file.
    command = str(path.parent / plugin.command) if "/" in plugin.command else plugin.command
    return ExecCredentials(
        ExecPlugin(
            command=command,
            args=plugin.args or [],
            env={entry.name: entry.value for entry in plugin.env or []},
            api_version=plugin.api_version,
            install_hint=plugin.install_hint or "",
            cluster=cluster_info(cluster) if plugin.provide_cluster_info else None,
        ),
        clock,
        tls,
    )


def _refuse(field: str, fix: str) -> NoReturn:
    raise KubeconfigError(f"{field}: {fix}")


def cluster_info(cluster: Cluster) -> dict[str, object]:
    """The data about the cluster for an exec plugin with `provideClusterInfo`."""
    info: dict[str, object | None] = {
        "server": cluster.server,
        "certificate-authority-data": cluster.certificate_authority_data,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "tls-server-name": cluster.tls_server_name,
        "proxy-url": cluster.proxy_url,
    }
    return {name: value for name, value in info.items() if value}


def _client_certificate(tls: ssl.SSLContext, user: User, path: Path, where: str) -> None:
    certificate = _bytes(
        user.client_certificate_data, user.client_certificate, path, f"{where}.client-certificate"
    )
    key = _bytes(user.client_key_data, user.client_key, path, f"{where}.client-key")
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise KubeconfigError(f"{where}: set both client-certificate and client-key")
    try:
        load_client_certificate(tls, certificate, key)
    except ssl.SSLError:
        _refuse(
            f"{where}.client-certificate", "give a PEM certificate and its own key, unencrypted"
        )


def _bytes(inline: str | None, name: str | None, path: Path, where: str) -> bytes | None:
    """The content of a field: the inline base64 value, else the file that it names, else None."""
    if inline:
        try:
            return from_base64(inline)
        except (binascii.Error, ValueError):
            _refuse(f"{where}-data", "it is not base64; encode the whole PEM file")
    if name:
        return _read_bytes(path.parent / name, where)
    return None


def from_base64(inline: str) -> bytes:
    """Decode a `-data` field. Line ends are allowed, as Go's decoder allows them."""
    return base64.b64decode(re.sub(r"[\r\n]", "", inline), validate=True)


def _read_bytes(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KubeconfigError(
            f"{where}: {path} can't be read: {error.strerror}; name a file that you can read"
        ) from None
    except ValueError:
        _refuse(where, "it is not a valid file name")


def _tls(where: str, ca: bytes | None, *, insecure: bool) -> ssl.SSLContext:
    try:
        # With an empty cadata, Python would load the machine's own CAs. "empty" fails instead.
        trusted = None if ca is None else ca.decode("ascii") or "empty"
        context = ssl.create_default_context(cadata=trusted)
    except (ssl.SSLError, UnicodeDecodeError):
        raise KubeconfigError(f"{where}: contains no PEM certificate") from None
    # Python 3.13 enables strict RFC 5280 verification by default. The CAs of many clusters lack the
    # key identifiers that it requires, because Go's verifier does not require them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _log(sources: Sources, level: str, event: str, **fields: str) -> None:
    if sources.quiet:
        return
    import structlog  # late: see Sources.quiet

    getattr(structlog.get_logger(__name__), level)(event, **fields)
