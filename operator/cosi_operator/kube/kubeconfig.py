"""Reads the address of the API server and the credentials: kubeconfig files or a service account.

The first of these that exists is used: the files that the caller names, the files in KUBECONFIG,
the pod's service account, ~/.kube/config. Several files are merged as kubectl merges them: the
first definition of a name takes precedence, a missing file is skipped, and a relative path is
relative to the directory of its file.

kr8s parses the files. Its merge order (the last definition takes precedence), paths and credentials
differ from kubectl's, so this module and auth.py resolve those. kr8s is imported only when a file
is read, because it takes 43 MiB, which a pod with a service account does not need.
"""

import base64
import binascii
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

import anyio
import msgspec
import structlog

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
from cosi_operator.kube.kubeconfig_file import Cluster, Kubeconfig, User
from cosi_operator.kube.proxy import proxy_for

log = structlog.get_logger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


class KubeconfigError(Exception):
    """The configuration can't be used. Names the file, the field and the remedy, no credential."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to search. `kubeconfig` is the value of the flag: paths joined as in KUBECONFIG."""

    kubeconfig: str | None
    environ: Mapping[str, str]
    service_account: Path = SERVICE_ACCOUNT


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
class _File:
    path: Path
    content: Kubeconfig


async def load(sources: Sources, clock: Clock) -> Connection:
    """Find and read the configuration.

    Raises:
        KubeconfigError: no configuration was found, or the one that was found can't be used.
    """
    if sources.kubeconfig:
        return await _from_files(sources, sources.kubeconfig, "--kubeconfig", clock)
    if named := sources.environ.get("KUBECONFIG"):
        return await _from_files(sources, named, "KUBECONFIG", clock)
    if (
        sources.environ.get("KUBERNETES_SERVICE_HOST")
        and await anyio.Path(sources.service_account).is_dir()
    ):
        return _in_cluster(sources, clock)
    if home := sources.environ.get("HOME"):
        default = anyio.Path(home, ".kube", "config")
        if await default.is_file():
            return await _from_files(sources, str(default), "~/.kube/config", clock)
    raise KubeconfigError(
        "no configuration found: pass --kubeconfig, set KUBECONFIG, or run in a pod whose "
        "service account token is mounted (automountServiceAccountToken)"
    )


def _in_cluster(sources: Sources, clock: Clock) -> Connection:
    host = sources.environ["KUBERNETES_SERVICE_HOST"]
    port = sources.environ.get("KUBERNETES_SERVICE_PORT", "443")
    ca = sources.service_account / "ca.crt"
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Connection(
        server=server,
        namespace=_namespace_file(sources.service_account / "namespace"),
        credentials=TokenFile(sources.service_account / "token", clock),
        tls=_tls(f"{ca}", _read_bytes(ca, "the cluster's CA"), insecure=False),
        proxy=_proxy_from_environment(server, sources.environ),
    )


def _namespace_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "default"
    except (OSError, UnicodeDecodeError):
        return "default"


async def _from_files(sources: Sources, names: str, source: str, clock: Clock) -> Connection:
    try:
        named = [name for name in names.split(os.pathsep) if name]
        paths = [await anyio.Path(name).expanduser() for name in named]
        found = [Path(path) for path in paths if await path.exists()]
    except (OSError, RuntimeError) as error:  # RuntimeError: "~nobody" has no home
        raise KubeconfigError(
            f"{source}: the path can't be resolved ({error}); give the path of the file"
        ) from None
    files = [await _read_file(path) for path in found]
    if not files:
        raise KubeconfigError(
            f"{source}: {', '.join(map(str, paths))} does not exist; "
            "create the file, or remove the setting to use the pod's service account"
        )
    return _resolve(files, sources.environ, clock)


async def _read_file(path: Path) -> _File:
    import yaml  # imported here with kr8s; the module's docstring gives the reason
    from kr8s._config import KubeConfig

    try:
        loaded = await KubeConfig(path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's text quotes the file
        where = f" (line {mark.line + 1})" if mark else ""
        raise KubeconfigError(f"{path}: is not YAML{where}") from None
    except UnicodeDecodeError:
        raise KubeconfigError(f"{path}: is not UTF-8 text") from None
    except (ValueError, RecursionError):  # an impossible date, or too deep nesting
        raise KubeconfigError(f"{path}: contains values that are invalid in a kubeconfig") from None
    except OSError as error:
        raise KubeconfigError(f"{path}: can't be read: {error.strerror or error}") from None
    try:
        return _File(path, msgspec.convert(loaded.raw, Kubeconfig))
    except msgspec.ValidationError as error:
        raise KubeconfigError(f"{path}: {error}") from None


def _resolve(files: Sequence[_File], environ: Mapping[str, str], clock: Clock) -> Connection:
    name = next((f.content.current_context for f in files if f.content.current_context), None)
    if not name:
        raise KubeconfigError(
            f"{files[0].path}: current-context is not set; run `kubectl config use-context`"
        )
    path, context = _named(files, "contexts", "context", name)
    where = f"{path}: contexts[{name}]"
    if not context.cluster:
        raise KubeconfigError(f"{where}.cluster is empty; name one of `clusters`")
    cluster_path, cluster = _named(files, "clusters", "cluster", context.cluster)
    user_path, user = (
        _named(files, "users", "user", context.user) if context.user else (path, User())
    )
    at_cluster = f"{cluster_path}: clusters[{context.cluster}]"
    at_user = f"{user_path}: users[{context.user}]"

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
            log.warning("tls_not_verified", server=server, kubeconfig=str(cluster_path))
        _client_certificate(tls, user, user_path, at_user)
    return Connection(
        server=server,
        namespace=context.namespace or "default",
        credentials=_credentials(user, user_path, at_user, (clock, tls, cluster)),
        tls=tls,
        tls_server_name=_tls_server_name(cluster.tls_server_name, at_cluster),
        proxy=_proxy(cluster.proxy_url, at_cluster) or _proxy_from_environment(server, environ),
    )


def _named(files: Sequence[_File], plural: str, singular: str, name: str) -> tuple[Path, Any]:
    for file in files:
        for entry in getattr(file.content, plural) or ():
            if entry.name == name and (found := getattr(entry, singular)) is not None:
                return file.path, found
    raise KubeconfigError(
        f"{', '.join(str(file.path) for file in files)}: no `{name}` in {plural}; "
        f"add it, or choose another context"
    )


def _server(server: str, where: str) -> str:
    parts = _url(server)
    if parts is None or parts.username or parts.query or parts.fragment:
        raise KubeconfigError(f"{where}.server must be a URL as https://host:port")
    return server.rstrip("/")


def _proxy(proxy: str | None, where: str) -> str | None:
    if proxy and _url(proxy) is None:
        _refuse(f"{where}.proxy-url", "only http and https proxies are supported, as URLs")
    return proxy or None


def _proxy_from_environment(server: str, environ: Mapping[str, str]) -> str | None:
    """The proxy from HTTPS_PROXY or HTTP_PROXY. The cluster's proxy-url takes precedence."""
    found = proxy_for(server, environ)
    if found is None:
        return None
    if found.url.startswith(("socks5:", "socks5h:")):  # client-go supports these
        _refuse(found.variable, "only http and https proxies are supported, not SOCKS")
    if _url(found.url) is None:  # client-go ignores it too, without a warning
        log.warning("proxy_variable_ignored", variable=found.variable, error="it is not a URL")
        return None
    log.info("api_server_behind_proxy", variable=found.variable)
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
    if user.username is not None:
        _refuse(
            f"{where}.username", "Kubernetes 1.19 removed basic authentication; use a token instead"
        )
    if user.auth_provider is not None:
        _refuse(f"{where}.auth-provider", "Kubernetes 1.26 removed this field; use an exec plugin")
    if user.impersonate is not None:
        _refuse(f"{where}.as", "impersonation is not supported; use that account directly")
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
            cluster=_cluster_info(cluster) if plugin.provide_cluster_info else None,
        ),
        clock,
        tls,
    )


def _refuse(field: str, fix: str) -> NoReturn:
    raise KubeconfigError(f"{field}: {fix}")


def _cluster_info(cluster: Cluster) -> dict[str, object]:
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
            # Line breaks are allowed, as in Go's decoder.
            return base64.b64decode(re.sub(r"[\r\n]", "", inline), validate=True)
        except (binascii.Error, ValueError):
            _refuse(f"{where}-data", "it is not base64; encode the whole PEM file")
    if name:
        return _read_bytes(path.parent / name, where)
    return None


def _read_bytes(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KubeconfigError(f"{where}: {path} can't be read: {error.strerror}") from None
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
