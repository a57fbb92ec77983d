"""Which server is reached by which proxy: client-go's rules, case by case."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.clock import FakeClock
from tests.unit.kube.test_kubeconfig import config, written

from cosi_operator.kube.kubeconfig import KubeconfigError, Sources, load
from cosi_operator.kube.proxy import proxy_for

PROXY = "http://proxy.example:3128"
SECRET = "very-secret-value"


@pytest.mark.parametrize(
    ("server", "environ", "proxy"),
    [
        pytest.param("https://s:1", {"HTTPS_PROXY": PROXY}, PROXY, id="https server"),
        pytest.param("https://s:1", {"https_proxy": PROXY}, PROXY, id="lower case"),
        pytest.param(
            "https://s", {"HTTPS_PROXY": PROXY, "https_proxy": "http://b"}, PROXY, id="upper first"
        ),
        pytest.param(
            "https://s", {"HTTPS_PROXY": "", "https_proxy": PROXY}, PROXY, id="empty is unset"
        ),
        pytest.param("https://s", {"HTTP_PROXY": PROXY}, None, id="https server, HTTP_PROXY"),
        pytest.param("http://s", {"HTTP_PROXY": PROXY}, PROXY, id="http server, HTTP_PROXY"),
        pytest.param("http://s", {"http_proxy": PROXY}, PROXY, id="http server, lower case"),
        pytest.param("http://s", {"HTTPS_PROXY": PROXY}, None, id="http server, HTTPS_PROXY"),
        pytest.param("https://s", {"ALL_PROXY": PROXY}, None, id="ALL_PROXY is not read"),
        pytest.param("https://s", {}, None, id="nothing set"),
        pytest.param("https://s", {"HTTPS_PROXY": "p:3128"}, "http://p:3128", id="no scheme"),
        pytest.param("https://localhost:6443", {"HTTPS_PROXY": PROXY}, None, id="localhost"),
        pytest.param("https://LOCALHOST", {"HTTPS_PROXY": PROXY}, None, id="LOCALHOST"),
        pytest.param("https://127.8.9.1", {"HTTPS_PROXY": PROXY}, None, id="loopback IPv4"),
        pytest.param("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, None, id="loopback IPv6"),
        pytest.param("https://[::ffff:127.0.0.1]", {"HTTPS_PROXY": PROXY}, None, id="mapped"),
    ],
)
def test_the_variable_for_the_servers_scheme_names_the_proxy(
    server: str, environ: dict[str, str], proxy: str | None
) -> None:
    found = proxy_for(server, environ)
    assert (found.url if found else None) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "server", "is_direct"),
    [
        ("*", "https://a.example", True),
        ("other.example, * ,", "https://a.example", True),
        ("example.com", "https://example.com", True),
        ("example.com", "https://api.example.com", True),
        ("example.com", "https://EXAMPLE.com:6443", True),
        ("Example.COM", "https://example.com", True),
        ("example.com", "https://notexample.com", False),
        (".example.com", "https://api.example.com", True),
        (".example.com", "https://example.com", False),
        ("*.example.com", "https://a.b.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("example.com:6443", "https://example.com:6443", True),
        ("example.com:6443", "https://api.example.com:6443", True),
        ("example.com:6443", "https://example.com", False),
        ("example.com:443", "https://example.com", True),
        (".svc,.cluster.local", "https://kubernetes.default.svc", True),
        ("com", "https://example.com", True),
        ("xample.com", "https://example.com", False),
        ("bücher.example", "https://xn--bcher-kva.example", True),
        ("10.96.0.1", "https://10.96.0.1:443", True),
        ("10.96.0.1", "https://10.96.0.10", False),
        ("10.96.0.1:6443", "https://10.96.0.1:6443", True),
        ("10.96.0.1:6443", "https://10.96.0.1", False),
        ("10.96.0.0/12", "https://10.111.0.1", True),
        ("10.96.7.7/12", "https://10.111.0.1", True),
        ("10.96.0.0/12", "https://10.112.0.1", False),
        ("10.96.0.0/255.240.0.0", "https://10.111.0.1", False),
        ("10.0.0.0/8", "https://a.10.example", False),
        ("10.0.0.0/8", "https://[::ffff:10.0.0.1]", True),
        ("::ffff:10.0.0.1", "https://10.0.0.1", True),
        ("fd00::/8", "https://[fd12::1]:6443", True),
        ("fd00::1", "https://[fd00::1]:6443", True),
        ("[fd00::1]:6443", "https://[fd00::1]:6443", True),
        ("[fd00::1]:6443", "https://[fd00::1]", False),
        ("[fd00::1]", "https://[fd00::1]", False),
        (":6443", "https://example.com:6443", False),
        ("10.0.0.0/99", "https://10.0.0.1", False),
        ("10.0.0.0.0/8", "https://10.0.0.1", False),
        ("\u00fc" * 70, "https://example.com", False),
        (" , ,", "https://example.com", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_the_servers_that_are_reached_directly(
    no_proxy: str, server: str, is_direct: bool, variable: str
) -> None:
    found = proxy_for(server, {"HTTPS_PROXY": PROXY, variable: no_proxy})
    assert (found is None) is is_direct


def test_no_proxy_in_upper_case_takes_precedence() -> None:
    environ = {"HTTPS_PROXY": PROXY, "NO_PROXY": "other.example", "no_proxy": "*"}
    assert proxy_for("https://example.com", environ) is not None


async def test_a_clusters_own_proxy_takes_precedence_even_over_no_proxy(tmp_path: Path) -> None:
    cluster = {"server": "https://example.com", "proxy-url": "http://of-the-cluster:1"}
    path = written(tmp_path, config(cluster=cluster))
    for environ in ({"HTTPS_PROXY": PROXY}, {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}):
        connection = await load(Sources(path, environ), FakeClock())
        assert connection.proxy == "http://of-the-cluster:1"


async def test_without_one_the_environment_decides(tmp_path: Path) -> None:
    path = written(tmp_path, config(cluster={"server": "https://example.com"}))
    url = f"http://me:{SECRET}@proxy.example:3128"
    with capture_logs() as logs:
        connection = await load(Sources(path, {"https_proxy": url}), FakeClock())
    assert connection.proxy == url
    assert [line["variable"] for line in logs] == ["https_proxy"]
    assert SECRET not in repr((logs, connection, proxy_for("https://s", {"HTTPS_PROXY": url})))


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@h:port", f"http://{SECRET}\x7f", "http://"])
async def test_an_invalid_proxy_url_is_ignored_and_logged_without_its_text(
    tmp_path: Path, url: str
) -> None:
    path = written(tmp_path, config(cluster={"server": "https://example.com"}))
    with capture_logs() as logs:
        connection = await load(Sources(path, {"HTTPS_PROXY": url}), FakeClock())
    assert connection.proxy is None
    assert [line["event"] for line in logs] == ["proxy_variable_ignored"]
    assert SECRET not in repr(logs)


async def test_a_socks_proxy_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, config(cluster={"server": "https://example.com"}))
    with pytest.raises(KubeconfigError, match=r"^HTTPS_PROXY: only http and https") as raised:
        await load(Sources(path, {"HTTPS_PROXY": f"socks5://me:{SECRET}@h:1"}), FakeClock())
    assert SECRET not in str(raised.value)
    direct = await load(
        Sources(path, {"HTTPS_PROXY": "socks5://h:1", "NO_PROXY": "example.com"}), FakeClock()
    )
    assert direct.proxy is None


async def test_a_pod_with_its_service_account_follows_too(tmp_path: Path) -> None:
    from tests.support.certificate import new_pair

    (tmp_path / "token").write_text("from-the-kubelet")
    (tmp_path / "ca.crt").write_bytes(new_pair().ca)
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "HTTPS_PROXY": PROXY}
    assert (await load(Sources(None, environ, tmp_path), FakeClock())).proxy == PROXY
    environ["NO_PROXY"] = "10.96.0.0/12"
    assert (await load(Sources(None, environ, tmp_path), FakeClock())).proxy is None
