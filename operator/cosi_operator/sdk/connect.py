"""One resolved kubeconfig for kr8s, and API objects made from it.

kr8s merges kubeconfig files differently from kubectl, knows no tokenFile, and writes keys that are
inline in a kubeconfig into temporary files that it never deletes. So it is given one context in one
mapping: without merging, with absolute paths, and with keys in files that are deleted together with
the API object. On Linux they are in memory, because a killed process deletes nothing.
"""

import os
import tempfile
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import kr8s
import msgspec
from kr8s._async_utils import as_sync_func

from cosi_operator.clock import RealClock
from cosi_operator.kube.kubeconfig import (
    Chosen,
    Connection,
    KubeconfigError,
    ServiceAccount,
    Sources,
    cluster_info,
    connection_of,
    find,
    from_base64,
    in_cluster,
)
from cosi_operator.kube.kubeconfig_file import Exec
from cosi_operator.kube.proxy import proxy_for
from cosi_operator.sdk.answer import REQUEST_TIMEOUT_S, answered, without_context
from cosi_operator.sdk.api_objects import AsyncApi, SyncApi, is_thread_gone
from cosi_operator.sdk.borrowed import Borrowed
from cosi_operator.sdk.login import Login, TokenPath
from cosi_operator.sdk.plugin import Plugin

NAME = "cosi"  # of the one context, cluster and user


class ProxyNameError(KubeconfigError):
    """A cluster has a tls-server-name and is behind a proxy, which kr8s can't combine."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """`kubeconfig` as kr8s takes it; `keys` deletes the files with keys that were inline.

    `plugin` is the exec plugin of its user, or what takes its place; `token` is the file that holds
    its token.
    """

    kubeconfig: dict[str, Any] = field(repr=False)
    keys: ExitStack = field(default_factory=ExitStack)
    plugin: Plugin | Borrowed | None = None
    token: TokenPath | None = None

    @property
    def login(self) -> Login:
        """How kr8s logs in with it."""
        return Login(
            self.kubeconfig["users"][0]["user"],
            self.kubeconfig["clusters"][0]["cluster"],
            self.plugin,
            self.token,
        )


async def resolve(sources: Sources) -> Resolved:
    """Find the configuration as kubectl does, and make one kubeconfig with one context of it.

    Raises:
        KubeconfigError: nothing was found, or what was found can't be used.
    """
    match await find(sources):
        case ServiceAccount(folder=folder):
            return await _of_pod(folder, sources)
        case Chosen() as chosen:
            return await _of_context(chosen, sources)


async def _of_pod(folder: Path, sources: Sources) -> Resolved:
    # As a kubeconfig, because kr8s would send a token with the newline at the end of its file.
    connection = in_cluster(sources, RealClock())
    _check_urls(connection, sources, "KUBERNETES_SERVICE_HOST", "")
    token = TokenPath(
        folder / "token",
        "the pod's service account",
        "mount its token (automountServiceAccountToken), or pass --kubeconfig",
    )
    cluster = {
        "server": connection.server,
        "certificate-authority": str(folder / "ca.crt"),
        "proxy-url": connection.proxy,
    }
    user = {"token": await token.read()}
    return Resolved(_one_context(_present(cluster), user, connection.namespace), token=token)


async def open_api(resolved: Resolved) -> AsyncApi:
    """An API object of kr8s; asks the server for its version.

    Raises:
        KubeconfigError: the exec plugin failed. ApiError, ApiSilent: the server refused, or did
        not answer.
    """
    return await _opened(AsyncApi, resolved)


async def open_sync_api(resolved: Resolved) -> SyncApi:
    """The same for programs without an event loop; in the thread of kr8s, as all that it does.

    A forked process can lack that thread. Then only what the SDK does itself works there.
    """
    if is_thread_gone():
        return await _opened(SyncApi, resolved)
    return await anyio.to_thread.run_sync(as_sync_func(_opened), SyncApi, resolved)


async def _opened[A: AsyncApi](kind: type[A], resolved: Resolved) -> A:
    api = _finished(kind(bypass_factory=True, kubeconfig=resolved.kubeconfig), resolved)
    try:
        server = resolved.kubeconfig["clusters"][0]["cluster"]["server"]
        await answered(f"log in to {server}", api.log_in)
        await answered(f"get version from {server}", api.check_server)
    except BaseException as error:
        await api.close()
        if not isinstance(error, Exception):
            raise
        failure = error
    else:
        return api
    raise without_context(failure)


def _finished[A: AsyncApi](api: A, resolved: Resolved) -> A:
    api.timeout = REQUEST_TIMEOUT_S
    api.use(resolved.login, weakref.finalize(api, resolved.keys.close))
    return api


def same_server(api: kr8s.Api) -> Resolved:
    """The server and the credentials of an existing API object, for another event loop."""
    auth = api.auth
    cluster: dict[str, Any] = {
        "server": auth.server,
        "certificate-authority": auth.server_ca_file and str(auth.server_ca_file),
        "tls-server-name": auth.tls_server_name,
        "proxy-url": auth.proxy or _proxy_of(auth.server),
    }
    if (kubeconfig := getattr(auth, "kubeconfig", None)) is not None:  # None in a pod
        cluster["insecure-skip-tls-verify"] = _is_insecure(kubeconfig.raw)
    user = {
        "client-certificate": auth.client_cert_file and str(auth.client_cert_file),
        "client-key": auth.client_key_file and str(auth.client_key_file),
    }
    return Resolved(
        _one_context(_present(cluster), _present(user), api.namespace), plugin=Borrowed(api)
    )


def _proxy_of(server: str) -> str:
    """The proxy of an API object that the SDK did not make."""
    found = proxy_for(server, os.environ)
    return found.url if found else ""


def _check_urls(connection: Connection, sources: Sources, at_server: str, at_proxy: str) -> None:
    """Raise KubeconfigError for a URL that httpx can't use; the text quotes none of it.

    The operator ignores variables that hold no URL, as client-go does, and logs that. Here nobody
    would see the log line.
    """
    variable = proxy_for(connection.server, sources.environ)
    if not at_proxy and variable is not None:
        at_proxy = variable.variable
    if at_proxy and not (connection.proxy and _is_usable(connection.proxy)):
        raise KubeconfigError(
            f"{at_proxy}: only http and https proxies are supported, as http://host:port; correct"
            " it, unset it, or except the server from the proxy (NO_PROXY)"
        )
    if not _is_usable(connection.server):
        raise KubeconfigError(f"{at_server}: its host is not a valid name")


def _is_usable(url: str) -> bool:
    try:
        return bool(httpx.URL(url).host)  # decodes an xn-- name
    except (httpx.InvalidURL, ValueError):  # ValueError: an invalid xn-- name
        return False


async def _of_context(chosen: Chosen, sources: Sources) -> Resolved:
    # Checks every field, and names the file and the field that can't be used.
    connection = connection_of(chosen, sources, RealClock())
    named = chosen.cluster.proxy_url and f"{chosen.at_cluster}.proxy-url"
    _check_urls(connection, sources, f"{chosen.at_cluster}.server", named or "")
    if connection.proxy and connection.tls_server_name:
        # httpx, which kr8s uses, checks the certificate for the server's address then.
        raise ProxyNameError(
            f"{chosen.at_cluster}.tls-server-name: kr8s can't use it behind a proxy; in `server`"
            " write a name of the certificate, or except the server from the proxy (NO_PROXY)"
        )
    cluster, user = chosen.cluster, chosen.user
    token_path = _token_path(chosen)
    token = user.token if token_path is None else await token_path.read()
    inline = {} if connection.tls is None else _inline(chosen)
    keys = ExitStack()
    try:
        files = {name: _file(keys, name, content) for name, content in inline.items() if content}
    except BaseException:
        keys.close()
        raise

    def path(name: str, named: str | None, base: Path) -> str | None:
        if connection.tls is None:
            return None
        return files.get(name) or (str(base.parent / named) if named else None)

    return Resolved(
        _one_context(
            _present(
                {
                    "server": connection.server,
                    "certificate-authority": path(
                        "certificate-authority", cluster.certificate_authority, chosen.cluster_path
                    ),
                    "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
                    "tls-server-name": connection.tls_server_name,
                    "proxy-url": connection.proxy,
                }
            ),
            _present(
                {
                    "token": token,
                    "client-certificate": path(
                        "client-certificate", user.client_certificate, chosen.user_path
                    ),
                    "client-key": path("client-key", user.client_key, chosen.user_path),
                }
            ),
            connection.namespace,
        ),
        keys=keys,
        plugin=_plugin(user.exec, chosen) if user.exec and not token else None,
        token=token_path,
    )


def _token_path(chosen: Chosen) -> TokenPath | None:
    if not chosen.user.token_file:
        return None
    return TokenPath(
        chosen.user_path.parent / chosen.user.token_file,
        f"{chosen.at_user}.tokenFile",
        "log in again, or name a file that you can read",
    )


def _inline(chosen: Chosen) -> dict[str, str | None]:
    """Keys and certificates in base64. As in kubectl, plain HTTP needs none of them."""
    return {
        "certificate-authority": chosen.cluster.certificate_authority_data,
        "client-certificate": chosen.user.client_certificate_data,
        "client-key": chosen.user.client_key_data,
    }


def _plugin(plugin: Exec, chosen: Chosen) -> Plugin:
    """The plugin with an absolute path, and with the cluster in its environment if it asks."""
    command = plugin.command
    if "/" in command:  # a bare name is looked up in PATH
        command = str(chosen.user_path.parent / command)
    env = {each.name: each.value for each in plugin.env or ()}
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        spec["cluster"] = cluster_info(chosen.cluster)
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    env["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(info).decode()
    return Plugin([command, *(plugin.args or [])], env, plugin.install_hint or "", chosen.at_user)


def _one_context(cluster: dict[str, Any], user: dict[str, Any], namespace: str) -> dict[str, Any]:
    context = {"cluster": NAME, "user": NAME, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "contexts": [{"name": NAME, "context": context}],
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": user}],
    }


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _is_insecure(kubeconfig: dict[str, Any]) -> bool:
    return any(entry["cluster"].get("insecure-skip-tls-verify") for entry in kubeconfig["clusters"])


def _file(keys: ExitStack, name: str, inline: str) -> str:
    """The path of a file with this content, which only this process and its user can read."""
    content = from_base64(inline)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
        keys.callback(os.close, descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
    else:
        path = Path(keys.enter_context(tempfile.TemporaryDirectory(prefix="cosi-")), name)
    path.write_bytes(content)
    return str(path)


def default_sources(
    kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None
) -> Sources:
    """Where the SDK looks: the arguments, then the environment of this process."""
    named = None if kubeconfig is None else os.fspath(kubeconfig)
    return Sources(named, os.environ, context=context or "", quiet=True)
