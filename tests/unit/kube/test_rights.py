"""A missing right is named once, counted while it is missing, and told when it is granted."""

import json

import pytest
from structlog.testing import capture_logs
from tests.support.apiserver import Reply, client_of, serving
from tests.support.clock import FakeClock

from cosi_operator.api.core import SECRETS
from cosi_operator.api.view import Key
from cosi_operator.kube.errors import ApiError, Forbidden, NotFound, error_of
from cosi_operator.kube.rights import FORGOTTEN_AFTER_S, Rights, missing_right
from cosi_operator.metrics import Metrics

USER = "system:serviceaccount:cosi:sidecar"
SECRET = "very-secret-value"


def denial(verb: str, resource: str, group: str, namespace: str = "") -> str:
    place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return (
        f'{resource} is forbidden: User "{USER}" cannot {verb} resource "{resource}" in API group'
        f' "{group}" {place}'
    )


def refusal(message: str, *, status: int = 403, confidential: bool = False) -> ApiError:
    body = json.dumps({"reason": "Forbidden", "message": message, "code": status}).encode()
    return error_of(status, body, what="a request", confidential=confidential)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            denial("create", "buckets", "objectstorage.k8s.io"),
            'the ClusterRole bound to ServiceAccount cosi/sidecar lacks the verb "create" on'
            " buckets.objectstorage.k8s.io in the whole cluster",
        ),
        (
            denial("get", "secrets", "", "team"),
            'the ClusterRole bound to ServiceAccount cosi/sidecar lacks the verb "get" on secrets'
            " in namespace team",
        ),
        (
            denial("update", "buckets/status", "objectstorage.k8s.io") + ": RBAC: role not found",
            'the ClusterRole bound to ServiceAccount cosi/sidecar lacks the verb "update" on'
            " buckets/status.objectstorage.k8s.io in the whole cluster",
        ),
        (
            denial("update", "leases", "coordination.k8s.io", "cosi"),
            'the Role bound to ServiceAccount cosi/sidecar lacks the verb "update" on'
            " leases.coordination.k8s.io in namespace cosi",
        ),
    ],
)
@pytest.mark.parametrize("confidential", [False, True])
def test_the_authorizers_refusal_names_verb_resource_and_role(
    message: str, words: str, confidential: bool
) -> None:
    right = missing_right(refusal(message, confidential=confidential))
    assert right is not None
    assert right.words == words


@pytest.mark.parametrize(
    "error",
    [
        refusal('pods "x" is forbidden: exceeded quota: q, requested: secrets=1'),
        refusal('admission webhook "w" denied the request: User may not'),
        refusal(denial("get", "secrets", ""), status=404),
        refusal(""),
    ],
)
def test_quota_admission_and_other_statuses_do_not_count_as_missing_rights(error: ApiError) -> None:
    assert missing_right(error) is None


def test_the_message_of_an_admission_webhook_about_a_secret_with_data_is_dropped() -> None:
    message = f'admission webhook "w" denied: key {SECRET}; ' + denial("get", "secrets", "", "a")
    kept = refusal(message, confidential=True)
    assert SECRET not in str(kept)
    assert missing_right(kept) is not None
    assert SECRET not in str(refusal(f"quota {SECRET}", confidential=True))


def test_one_line_for_a_right_however_often_and_in_however_many_namespaces() -> None:
    rights = Rights(FakeClock())
    with capture_logs() as logs:
        for namespace in ("a", "b", "a", "c"):
            rights.refused(refusal(denial("get", "secrets", "", namespace)))
        rights.refused(refusal(denial("create", "secrets", "", "a")))
    assert [(line["log_level"], line["verb"], line["resource"]) for line in logs] == [
        ("error", "get", "secrets"),
        ("error", "create", "secrets"),
    ]
    assert rights.missing() == {"get secrets", "create secrets"}


def test_it_is_granted_when_the_last_place_allows_it() -> None:
    rights = Rights(FakeClock())
    for namespace in ("a", "b"):
        rights.refused(refusal(denial("get", "secrets", "", namespace)))
    with capture_logs() as logs:
        rights.allowed("get secrets", "a")
        rights.allowed("get secrets", "other")
        assert logs == []
        assert rights.missing() == {"get secrets"}
        rights.allowed("get secrets", "b")
    assert [line["event"] for line in logs] == ["permission_granted"]
    assert rights.missing() == frozenset()


def test_a_right_that_is_no_longer_requested_expires() -> None:
    clock = FakeClock()
    rights = Rights(clock)
    rights.refused(refusal(denial("get", "secrets", "", "gone")))
    clock.advance(FORGOTTEN_AFTER_S + 1)
    assert rights.missing() == frozenset()


async def test_a_client_records_missing_rights_and_the_metric_shows_them() -> None:
    denied = json.dumps({"reason": "Forbidden", "message": denial("get", "secrets", "", "team")})
    metrics = Metrics()
    async with serving() as server, client_of(server, FakeClock()) as client:
        metrics.watch_missing_permissions(client.rights.missing)
        series = b'cosi_missing_permissions{resource="secrets",verb="get"} 1.0'
        server.fail_next("get", Reply(403, body=denied.encode()))
        with pytest.raises(Forbidden, match='cannot get resource "secrets"'):
            await client.get(SECRETS, Key("team", "x"))
        assert series in metrics.expose()
        with pytest.raises(NotFound):  # there is no such Secret, and the right is there
            await client.get(SECRETS, Key("team", "x"))
        assert series not in metrics.expose()


async def test_a_dry_run_of_a_secret_quotes_the_server_and_the_real_one_does_not() -> None:
    body = json.dumps({"reason": "Forbidden", "message": "exceeded quota: count/secrets"}).encode()
    async with serving() as server, client_of(server, FakeClock()) as client:
        for dry_run, quoted in ((True, True), (False, False)):
            server.fail_next("create", Reply(403, body=body))
            with pytest.raises(Forbidden) as raised:
                await client.create(
                    SECRETS, {"metadata": {"name": "x"}}, namespace="team", dry_run=dry_run
                )
            assert ("exceeded quota" in raised.value.message) is quoted
