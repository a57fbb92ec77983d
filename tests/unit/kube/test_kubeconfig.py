"""Configuration: kubectl's rules where it can be used, one clear sentence where it can't."""

import base64
import copy
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.apiserver import serving
from tests.support.certificate import Pair, new_pair
from tests.support.clock import FakeClock
from yarl import URL

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key
from cosi_operator.kube.auth import ExecCredentials, FixedToken, TokenFile
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.kubeconfig import Connection, KubeconfigError, Sources, load
from cosi_operator.kube.request import Request

SECRET = "very-secret-value"

type Json = dict[str, Any]


def config(*, cluster: Json | None = None, user: Json | None = None) -> Json:
    return {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://example.com:6443"}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
    } | (
        ({"clusters": [{"name": "c", "cluster": cluster}]} if cluster is not None else {})
        | ({"users": [{"name": "u", "user": user}]} if user is not None else {})
    )


def written(directory: Path, content: object, name: str = "config") -> str:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


async def loaded(path: str | None, **environ: str) -> Connection:
    return await load(Sources(path, environ, Path("nowhere")), FakeClock())


# --- where it looks, in order


async def test_the_flag_takes_precedence_over_the_environment(tmp_path: Path) -> None:
    flag = written(tmp_path, config(cluster={"server": "https://flag"}), "flag")
    env = written(tmp_path, config(cluster={"server": "https://env"}), "env")
    assert (await loaded(flag, KUBECONFIG=env)).server == "https://flag"
    assert (await loaded(None, KUBECONFIG=env)).server == "https://env"
    assert (await loaded("", KUBECONFIG=env)).server == "https://env"


async def test_the_home_directory_is_used_last(tmp_path: Path) -> None:
    written(tmp_path / ".kube", config())
    assert (await loaded(None, HOME=str(tmp_path))).server == "https://example.com:6443"


async def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("from-the-kubelet")
    (account / "namespace").write_text("storage\n")
    (account / "ca.crt").write_bytes(new_pair().ca)
    written(tmp_path / ".kube", config())
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "HOME": str(tmp_path)}
    connection = await load(Sources(None, environ, account), FakeClock())
    assert connection.server == "https://[fd00::1]:443"
    assert connection.namespace == "storage"
    assert isinstance(connection.credentials, TokenFile)
    assert await connection.credentials.authorization() == "Bearer from-the-kubelet"
    assert connection.tls is not None
    assert connection.tls.verify_mode is ssl.CERT_REQUIRED


async def test_a_service_account_without_a_ca_or_namespace(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    with pytest.raises(KubeconfigError, match=r"the cluster's CA: .*ca.crt can't be read"):
        await load(Sources(None, environ, tmp_path), FakeClock())
    (tmp_path / "ca.crt").write_bytes(new_pair().ca)
    connection = await load(Sources(None, environ, tmp_path), FakeClock())
    assert (connection.server, connection.namespace) == ("https://10.0.0.1:6443", "default")


async def test_nothing_found_names_every_place_that_was_searched(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError) as raised:
        await loaded(None, HOME=str(tmp_path))
    for place in (
        "--kubeconfig and KUBECONFIG are not set",
        f"{tmp_path}/.kube/config does not exist",
        "KUBERNETES_SERVICE_HOST is not set",
        "Pass --kubeconfig, set KUBECONFIG, or run in a pod",
    ):
        assert place in str(raised.value)
    with pytest.raises(KubeconfigError, match=r"HOME is not set.*nowhere does not exist"):
        await loaded(None, KUBERNETES_SERVICE_HOST="10.0.0.1")


async def test_files_that_do_not_exist_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match=r"KUBECONFIG: none of .*/one, .*/two exists; create"):
        await loaded(None, KUBECONFIG=f"{tmp_path}/one:{tmp_path}/two")


# --- which context


async def test_a_named_context_overrides_the_current_one_and_the_pods_account(
    tmp_path: Path,
) -> None:
    content = config()
    content["contexts"] += [
        {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "other"}}
    ]
    path = written(tmp_path / ".kube", content)
    for environ in ({"KUBECONFIG": path}, {"KUBERNETES_SERVICE_HOST": "h", "HOME": str(tmp_path)}):
        sources = Sources(None, environ, tmp_path, context="there")
        assert (await load(sources, FakeClock())).namespace == "other"


async def test_a_context_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    path = written(tmp_path, config())
    with pytest.raises(KubeconfigError, match=r"no `nope` in contexts; .*\(there are: here\)"):
        await load(Sources(path, {}, tmp_path, context="nope"), FakeClock())


# --- several files, merged as kubectl does it


async def test_the_first_definition_takes_precedence_and_missing_files_are_skipped(
    tmp_path: Path,
) -> None:
    first = written(tmp_path, {"users": [{"name": "u", "user": {"token": "first"}}]}, "one")
    second = written(tmp_path, config(user={"token": "second"}), "two")
    connection = await loaded(f"{tmp_path}/missing:{first}:{second}")
    assert await connection.credentials.authorization() == "Bearer first"
    assert connection.namespace == "team"


async def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    written(tmp_path / "a", config(user={"tokenFile": "secrets/token"}))
    written(tmp_path / "a" / "secrets", "from-a-file", "token")
    connection = await loaded(f"{tmp_path}/a/config")
    assert await connection.credentials.authorization() == "Bearer from-a-file"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param("aws", "aws", id="a bare name is looked up in PATH"),
        pytest.param("./bin/p", "{}/bin/p", id="one with a slash is relative to the file"),
    ],
)
async def test_where_an_exec_plugin_is(tmp_path: Path, command: str, expected: str) -> None:
    plugin = {"command": command, "apiVersion": "client.authentication.k8s.io/v1"}
    connection = await loaded(written(tmp_path, config(user={"exec": plugin})))
    assert isinstance(connection.credentials, ExecCredentials)
    assert connection.credentials._plugin.command == expected.format(tmp_path)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param(
            True,
            {"server": "https://h:1", "tls-server-name": "n"},
            id="provideClusterInfo -> passed",
        ),
        pytest.param(False, None, id="no provideClusterInfo -> not passed"),
    ],
)
async def test_an_exec_plugin_gets_the_cluster_only_with_provide_cluster_info(
    tmp_path: Path, asked: bool, told: Json | None
) -> None:
    cluster = {"server": "https://h:1", "tls-server-name": "n", "certificate-authority-data": ""}
    plugin = EXEC | {"provideClusterInfo": asked}
    path = written(tmp_path, config(cluster=cluster, user={"exec": plugin}))
    credentials = (await loaded(path)).credentials
    assert isinstance(credentials, ExecCredentials)
    assert credentials._plugin.cluster == told


async def test_a_home_directory_without_a_kubeconfig_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="no configuration"):
        await loaded(None, HOME=str(tmp_path))


async def test_no_user_and_an_empty_user_mean_no_credentials(tmp_path: Path) -> None:
    nobody = config(user={})
    assert (await loaded(written(tmp_path, nobody))).credentials == FixedToken()
    nobody["contexts"][0]["context"]["user"] = ""
    assert (await loaded(written(tmp_path, nobody))).credentials == FixedToken()


# --- TLS


def test_what_a_connection_holds_is_not_shown(tmp_path: Path) -> None:
    connection = anyio.run(loaded, written(tmp_path, config()))
    assert SECRET not in repr(connection)


async def test_an_unverified_server_is_logged_once(tmp_path: Path) -> None:
    cluster = {"server": "https://example.com", "insecure-skip-tls-verify": True}
    with capture_logs() as logs:
        connection = await loaded(written(tmp_path, config(cluster=cluster)))
    assert connection.tls is not None
    assert connection.tls.verify_mode is ssl.CERT_NONE
    assert [entry["event"] for entry in logs] == ["tls_not_verified"]


def _b64(content: bytes, *, lines: bool = False) -> str:
    return (base64.encodebytes if lines else base64.b64encode)(content).decode()


@pytest.mark.parametrize(
    "inline", [pytest.param(True, id="inline"), pytest.param(False, id="in files")]
)
async def test_a_client_certificate_is_shown_to_the_server(tmp_path: Path, *, inline: bool) -> None:
    server_pair, ours = new_pair(), new_pair()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ours.ca.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    _load(tls, server_pair, tmp_path)
    async with serving(tls) as server:
        if inline:
            content = config(
                cluster={
                    "server": server.url,
                    "certificate-authority-data": _b64(server_pair.ca, lines=True),
                },
                user={
                    "client-certificate-data": _b64(ours.certificate),
                    "client-key-data": _b64(ours.key),
                },
            )
        else:
            (tmp_path / "ca.pem").write_bytes(server_pair.ca)
            (tmp_path / "me.pem").write_bytes(ours.certificate)
            (tmp_path / "me.key").write_bytes(ours.key)
            content = config(
                cluster={"server": server.url, "certificate-authority": "ca.pem"},
                user={"client-certificate": "me.pem", "client-key": "me.key"},
            )
        connection = await loaded(written(tmp_path, content))
        async with KubeClient(connection, clock=FakeClock(), user_agent="test/1") as client:
            assert (await client.list(SECRETS)).items == ()
    assert "Authorization" not in server.seen[0].headers


def _load(tls: ssl.SSLContext, pair: Pair, directory: Path) -> None:
    (directory / "pair.pem").write_bytes(pair.certificate + pair.key)
    tls.load_cert_chain(directory / "pair.pem")


# --- what can't be used


PAIR = new_pair()
EXEC = {"command": "p", "apiVersion": "client.authentication.k8s.io/v1"}


ODD_NAMESPACES = ["a b", "../x", "..", "é", "%2e%2e", "a?b", "a\x1bb", "a\nb", "a" * 70_000]


def _bomb(line: str) -> str:
    """Nine lines that each name the line before nine times."""
    lines = ["l0: &l0 {x: 1}"]
    lines += [f"l{i + 1}: &l{i + 1} " + line.format(f"*l{i}," * 9) for i in range(9)]
    return "\n".join(lines)


def _with(change: Callable[[Json], object]) -> Json:
    content = config()
    change(content)
    return content


def _in_namespace(name: str) -> Json:
    return _with(lambda c: c["contexts"][0]["context"].update(namespace=name))


def _cluster(**fields: object) -> Json:
    return config(
        cluster={"server": "https://h"} | {k.replace("_", "-"): v for k, v in fields.items()}
    )


def _user(**fields: object) -> Json:
    return config(user={k.replace("_", "-"): v for k, v in fields.items()})


BAD = {
    "no YAML": ("a: [", r"is not YAML \(line 1\)"),
    "a tag that asks for code": ("!!python/object/apply:os.getcwd []", "is not YAML"),
    "brackets without end": ("[" * 3000, "contains values that are invalid in a kubeconfig"),
    "a date that does not exist": (
        "a: 2026-02-31",
        "contains values that are invalid in a kubeconfig",
    ),
    **{
        f"a tag whose value does not fit: {tag}": (
            f"a: !!{tag} x",
            "invalid in a kubeconfig; put dates in quotes, and remove tags",
        )
        for tag in ("timestamp", "bool", "int", "float")
    },
    "aliases of lists that repeat 9^9 times": (_bomb("[{}]"), "repeats too much"),
    "merge keys that repeat 9^9 times": (_bomb("{{<<: [{}]}}"), "repeats too much"),
    **{
        f"a namespace that none can be: {name[:9]!r}": (
            _in_namespace(name),
            r"contexts\[here\]\.namespace: '.*' is not a name of a namespace; correct it",
        )
        for name in ODD_NAMESPACES
    },
    "empty": ("", "current-context is not set"),
    "a list": ([], "Expected `object`, got `array`"),
    "no current context": (
        _with(lambda c: c.pop("current-context")),
        "current-context is not set; run `kubectl config use-context`",
    ),
    "a context that is not there": (
        _with(lambda c: c.update({"current-context": "there"})),
        "no `there` in contexts; add it, or choose another context",
    ),
    "a context without a cluster": (
        _with(lambda c: c["contexts"][0]["context"].pop("cluster")),
        r"contexts\[here\]\.cluster is empty; name one of `clusters`",
    ),
    "a cluster that is not there": (_with(lambda c: c.pop("clusters")), "no `c` in clusters"),
    "a user that is not there": (_with(lambda c: c.update(users=None)), "no `u` in users"),
    "a number for a name": (
        _with(lambda c: c["contexts"][0].update(name=5)),
        r"Expected `str`, got `int` - at `\$\.contexts\[0\]\.name`; correct this value \(in quotes",
    ),
    "no server": (_cluster(server=""), r"clusters\[c\]\.server must be a URL as https://host:port"),
    "a server without a scheme": (_cluster(server="h:6443"), r"\.server must be a URL"),
    "a server with a password": (_cluster(server=f"https://a:{SECRET}@h"), r"\.server must be"),
    "a port that does not exist": (_cluster(server="https://h:99999"), r"\.server must be a URL"),
    "a server of two words": (_cluster(server="https://h h"), r"\.server must be a URL"),
    "a CA file that is not there": (
        _cluster(certificate_authority="ca.pem"),
        r"clusters\[c\]\.certificate-authority: .*ca\.pem can't be read: No such file",
    ),
    "a CA path that is none": (
        _cluster(certificate_authority="\0"),
        r"\.certificate-authority: it is not a valid file name",
    ),
    "CA data that is not base64": (
        _cluster(certificate_authority_data="%"),
        r"\.certificate-authority-data: it is not base64",
    ),
    "CA data that is no certificate": (
        _cluster(certificate_authority_data=_b64(b"x")),
        r"\.certificate-authority: contains no PEM certificate",
    ),
    "CA data that is not even text": (
        _cluster(certificate_authority_data=_b64(b"\xff")),
        r"\.certificate-authority: contains no PEM certificate",
    ),
    "an empty CA file is no wish for the machine's own CAs": (
        _cluster(certificate_authority="/dev/null"),
        r"\.certificate-authority: contains no PEM certificate",
    ),
    "a TLS name that is none": (
        _cluster(tls_server_name=".h"),
        r"\.tls-server-name: it must be a host name",
    ),
    "a SOCKS proxy": (
        _cluster(proxy_url="socks5://h:1"),
        r"\.proxy-url: only http and https proxies",
    ),
    "a proxy that is no URL": (_cluster(proxy_url="http://h:x"), r"\.proxy-url: only http"),
    "a token of two lines": (_user(token=f"{SECRET}\nb"), r"users\[u\]\.token: .*; replace it"),
    "basic authentication": (
        _user(username="me", password=SECRET),
        r"\.username: Kubernetes 1\.19 removed basic authentication; use a token",
    ),
    "an auth provider": (_user(auth_provider={"name": "gcp"}), r"\.auth-provider: .*exec plugin"),
    **{
        f"impersonation of no user: {name}": (
            config(user={name: value}),
            rf"\.{name}: impersonation is not supported",
        )
        for name, value in (
            ("as-groups", ["system:masters"]),
            ("as-uid", "1"),
            ("as-user-extra", {"scopes": ["all"]}),
        )
    },
    "impersonation": (config(user={"as": "root"}), r"\.as: impersonation is not supported"),
    "a certificate without its key": (
        _user(client_certificate_data=_b64(PAIR.certificate)),
        r"users\[u\]: set both client-certificate and client-key",
    ),
    "a key that is none": (
        _user(client_certificate_data=_b64(PAIR.certificate), client_key_data=_b64(b"x")),
        r"\.client-certificate: give a PEM certificate and its own key, unencrypted",
    ),
    "an exec plugin of an old version": (
        config(user={"exec": EXEC | {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}),
        r"\.exec\.apiVersion: use one of client\.authentication\.k8s\.io/v1,",
    ),
    "an exec plugin without a command": (
        config(user={"exec": {"apiVersion": EXEC["apiVersion"]}}),
        r"missing required field `command` - at `\$\.users\[0\]\.user\.exec`",
    ),
}


@pytest.mark.parametrize(
    ("content", "words"), [pytest.param(*case, id=name) for name, case in BAD.items()]
)
async def test_the_error_of_an_invalid_file_names_the_field_and_the_remedy(
    tmp_path: Path, content: object, words: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(KubeconfigError, match=words) as raised:
        await loaded(path)
    assert str(raised.value).startswith(f"{path}:")
    assert SECRET not in str(raised.value)


async def test_aliases_and_merge_keys_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    content = """
        common: &common {server: https://one.example}
        loop: &loop {again: *loop}
        current-context: here
        contexts: [{name: here, context: {cluster: c, user: u}}]
        clusters: [{name: c, cluster: {<<: *common, tls-server-name: h}}]
        users: [{name: u, user: {token: "1", as-groups: [], as-uid: ""}}]
    """
    connection = await loaded(written(tmp_path, content))
    assert (connection.server, connection.tls_server_name) == ("https://one.example", "h")


NULLS = {
    "preferences": None,
    "current-context": "here",
    "contexts": [
        None,
        {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": None}},
    ],
    "clusters": [
        {"name": None, "cluster": None},
        {
            "name": "c",
            "cluster": {
                "server": "HTTPS://One.example/",
                "insecure-skip-tls-verify": None,
                "proxy-url": "HTTP://proxy.example:3128",
                "extensions": None,
            },
        },
    ],
    "users": [{"name": "u", "user": None}],
}
PLUGIN_OF_NULLS = {
    **EXEC,
    "args": None,
    "installHint": None,
    "env": [{"name": "A", "value": None}],
}
AS_KUBECTL = {
    "JSON with tabs": json.dumps(NULLS, indent="\t"),
    "JSON with a byte order mark": "\ufeff\n" + json.dumps(NULLS),
    "JSON and a document after it": json.dumps(NULLS) + "\n---\n{",
    "YAML": yaml.safe_dump(NULLS),
    "a line of dashes at the end": yaml.safe_dump(NULLS) + "---\n",
    "a line of dots at the end": yaml.safe_dump(NULLS) + "...\n",
    "a document after it": yaml.safe_dump(NULLS) + "---\n- other\n",
    "what is no YAML after it": yaml.safe_dump(NULLS) + "---\n{{{\n",
    **{
        f"a user of nulls: {name}": yaml.safe_dump(
            NULLS | {"users": [{"name": "u", "user": user}]}, allow_unicode=True
        )
        for name, user in {
            "token": {"token": None, "tokenFile": None},
            "basic authentication": {"username": "", "password": None, "auth-provider": None},
            "impersonation": {"as": "", "as-groups": None, "as-user-extra": None},
            "plugin": {"exec": PLUGIN_OF_NULLS},
        }.items()
    },
}


@pytest.mark.parametrize("content", AS_KUBECTL)
async def test_what_kubectl_reads_is_read(tmp_path: Path, content: str) -> None:
    connection = await loaded(written(tmp_path, AS_KUBECTL[content]))
    assert (connection.server, connection.namespace) == ("https://One.example", "default")
    assert connection.tls is not None  # a scheme in upper case would else mean plain HTTP
    assert connection.proxy == "http://proxy.example:3128"


async def test_the_scheme_of_a_proxy_variable_has_no_case(tmp_path: Path) -> None:
    path = written(tmp_path, config(cluster={"server": "HTTPS://one.example"}))
    connection = await loaded(path, HTTPS_PROXY="HTTP://proxy.example:3128")
    assert connection.proxy == "http://proxy.example:3128"
    with pytest.raises(KubeconfigError, match="HTTPS_PROXY: only http and https proxies"):
        await loaded(path, HTTPS_PROXY="SOCKS5://proxy.example:3128")


async def test_a_setting_that_names_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="KUBECONFIG: it names no file; create the file, or"):
        await loaded(None, KUBECONFIG=":::")


@pytest.mark.parametrize(
    "host", ["h/", "h/x", "a@h", "a:b@h", "h?", "h#x", "h h", "[h]", "é", ".."]
)
async def test_a_host_that_is_none_is_told_in_a_pod(tmp_path: Path, host: str) -> None:
    (tmp_path / "ca.crt").write_bytes(PAIR.ca)
    with pytest.raises(KubeconfigError, match="must be a host and a port"):
        await load(Sources(None, {"KUBERNETES_SERVICE_HOST": host}, tmp_path), FakeClock())


@pytest.mark.parametrize("name", ODD_NAMESPACES, ids=lambda name: repr(name[:9]))
async def test_a_namespace_that_none_can_be_is_told_in_a_pod(tmp_path: Path, name: str) -> None:
    (tmp_path / "ca.crt").write_bytes(PAIR.ca)
    (tmp_path / "namespace").write_text(name)
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(KubeconfigError, match="is not a name of a namespace; mount") as raised:
        await load(Sources(None, environ, tmp_path), FakeClock())
    assert str(raised.value).startswith(f"{tmp_path}/namespace: ")
    assert len(str(raised.value)) < 700


async def test_a_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"\xff\xfe")
    with pytest.raises(KubeconfigError, match="is not UTF-8 text"):
        await loaded(str(tmp_path / "config"))


async def test_a_directory_and_a_missing_file_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match=r"can't be read"):
        await loaded(str(tmp_path))
    with pytest.raises(
        KubeconfigError,
        match=r"--kubeconfig: .*missing does not exist; create .* or ~/\.kube/config outside",
    ):
        await loaded(str(tmp_path / "missing"))
    with pytest.raises(
        KubeconfigError,
        match=r"--kubeconfig: the path can't be resolved .*; give the path",
    ):
        await loaded("~no-such-user-here/config")


# --- the property: never a traceback

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=8),
    st.sampled_from(["https://h", "http://[::1]:80/x", "https://h:0", "http://%zz", "//", "~x/y"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
WHOLE = config(
    cluster={
        "server": "https://h",
        "certificate-authority-data": _b64(PAIR.ca),
        "insecure-skip-tls-verify": False,
        "tls-server-name": "h",
        "proxy-url": "http://p:1",
    },
    user={
        "client-certificate-data": _b64(PAIR.certificate),
        "client-key-data": _b64(PAIR.key),
        "token": SECRET,
        "tokenFile": "",
        "exec": EXEC | {"args": ["a"], "env": [{"name": "A", "value": SECRET}]},
    },
)


def _places(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to each value in the file, itself included."""
    found = [path]
    items: list[tuple[str | int, object]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    for key, value in items:
        found += _places(value, (*path, key))
    return found


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(changes=st.lists(st.tuples(st.sampled_from(_places(WHOLE)[1:]), ODD), max_size=3))
def test_whatever_is_in_the_file_there_is_a_connection_or_a_sentence(
    changes: list[tuple[tuple[str | int, ...], object]],
) -> None:
    content: Any = copy.deepcopy(WHOLE)
    for (*path, last), value in changes:
        node = content
        try:
            for key in path:
                node = node[key]
            node[last] = value
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    with TemporaryDirectory() as directory, capture_logs():
        file = written(Path(directory), content)
        sentence = anyio.run(_sentence, file)
    assert sentence == "" or sentence.startswith(f"{file}: ")
    assert SECRET not in sentence


async def _sentence(file: str) -> str:
    try:
        await _use(file)
    except KubeconfigError as error:
        return str(error)
    return ""


async def _use(path: str) -> None:
    """What is accepted must also make a request; it is not sent, as nobody listens."""
    connection = await loaded(path)
    request = Request("get", SECRETS, Key("team", "one"))
    assert request.url(connection.server).host
    assert connection.proxy is None or URL(connection.proxy).host
    async with KubeClient(connection, clock=FakeClock(), user_agent="test/1"):
        pass


@settings(max_examples=100, deadline=None, print_blob=True)
@given(content=st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_whatever_bytes_the_file_has_there_is_a_sentence(content: str | bytes) -> None:
    raw = content if isinstance(content, bytes) else content.encode(errors="replace")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "config"
        path.write_bytes(raw)
        with pytest.raises(KubeconfigError):
            anyio.run(loaded, str(path))
