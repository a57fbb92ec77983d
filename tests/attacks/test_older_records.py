"""Older versions of a Bucket are applied, two sidecars run, and etcd is set back."""

import base64
import copy
import http.client
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.attacks.test_accounts_of_others import add_access
from tests.attacks.test_bindings import static_bucket
from tests.attacks.test_removed_by_force import lose_claim
from tests.attacks.test_shared_buckets import backend_ids, ready_bucket_id
from tests.attacks.test_tenants import granted, lives

from cosi_operator.outcome import Call
from testbed import Testbed, claim_body
from testbed.objects import Json, condition
from testbed.process import operator_process


def apply_older(bed: Testbed, older: Json) -> None:
    """As `kubectl apply --force-conflicts` or Velero's update policy writes a saved Bucket."""

    def write(body: Json) -> None:
        body["metadata"]["annotations"] = older["metadata"]["annotations"]
        body["spec"] = older["spec"]

    bed.edit("buckets", older["metadata"]["name"], write)


@pytest.mark.attack("a Bucket from before it was bound again is applied, and then deleted")
def test_an_older_bucket_is_applied_after_a_rebind(bed: Testbed, name: str) -> None:
    bucket, dynamic = f"{name}-s", f"{name}-d"
    bucket_id = ready_bucket_id(bed, dynamic)
    first = bed.bucket_of(dynamic)["metadata"]["name"]
    bed.edit("buckets", first, lambda b: b["spec"].update(deletionPolicy="Retain"))
    bed.delete("bucketclaims", dynamic)
    bed.until_gone("bucketclaims", [dynamic])
    static = static_bucket(bucket, bucket_id=bucket_id, class_name=dynamic, claim={})
    static["spec"]["deletionPolicy"] = "Delete"
    bed.create("buckets", static)
    bed.create("bucketclaims", claim_body(name, existing=bucket))
    bed.until_ready("bucketclaims", [name])
    older = copy.deepcopy(bed.get("buckets", bucket))
    lose_claim(bed, name)
    bed.create("bucketclaims", claim_body(name, existing=bucket))
    bed.until_reason("bucketclaims", name, "BucketAlreadyBound")
    bound = {"uid": bed.get("bucketclaims", name)["metadata"]["uid"]}
    bed.edit("buckets", bucket, lambda b: b["spec"]["bucketClaim"].update(bound))
    bed.until_ready("bucketclaims", [name])
    bed.make_accesses([name], class_name=dynamic)
    bed.until_ready("bucketaccesses", [name])
    apply_older(bed, older)
    bed.until_quiet()
    bed.delete("buckets", bucket)
    bed.until_quiet()
    assert condition(bed.get("buckets", bucket))["reason"] == "BucketInUse"
    assert bucket_id in backend_ids(bed)


@pytest.mark.attack("a Bucket from before its claim is applied; other tenants' claims wait for it")
def test_an_older_bucket_from_before_its_claim(bed: Testbed, name: str) -> None:
    bed.make_classes(name)
    team, evil = bed.make_namespace(f"{name}-team"), bed.make_namespace(f"{name}-evil")
    buckets = [f"{name}-{number}" for number in range(3)]  # which claim comes first is chance
    for bucket in buckets:
        body = static_bucket(bucket, bucket_id=f"id-{bucket}", class_name=name, claim={})
        bed.create("buckets", body)
    bed.until_ready("buckets", buckets)
    older = [copy.deepcopy(bed.get("buckets", bucket)) for bucket in buckets]
    for bucket in buckets:
        bed.create("bucketclaims", claim_body(bucket, existing=bucket, namespace=team), team)
    bed.until_ready("bucketclaims", buckets, team)
    waiting = {f"{each}-{bucket}": bucket for bucket in buckets for each in ("a", "b")}
    for claim, bucket in waiting.items():
        bed.create("bucketclaims", claim_body(claim, existing=bucket, namespace=evil), evil)
    for claim in waiting:
        bed.until_reason("bucketclaims", claim, "BucketAlreadyBound", evil)
    bed.until_quiet()
    for each in older:
        apply_older(bed, each)
    bed.until_quiet()
    bound = [bed.get("buckets", bucket)["spec"]["bucketClaim"] for bucket in buckets]
    assert [claim.get("namespace") for claim in bound] == [team] * len(buckets)


@contextmanager
def second_sidecar(bed: Testbed) -> Iterator[None]:
    """A sidecar of the same driver, without leader election, that watches everything."""
    account = bed.accounts["sidecar"]
    mark = bed.plane.audit.mark()
    with tempfile.TemporaryDirectory(prefix="cosi-") as directory:
        process = operator_process(
            "sidecar",
            [f"--driver-addr={bed.driver.address}", "--leader-elect=false"],
            kubeconfig=bed.plane.kubeconfig_for(*account),
            namespace=account[0],
            logs=Path(directory),
        )
        process.start()
        try:
            kinds = {"buckets", "bucketclaims", "bucketaccesses"}

            def watches() -> bool:
                asked = bed.requests(since=mark)
                return kinds <= {entry.resource for entry in asked if entry.verb == "watch"}

            bed.until("the second sidecar to watch", watches)
            bed.until_quiet()
            yield
        finally:
            process.stop(grace_s=10)


@pytest.mark.attack("two sidecars of one driver run without leader election; an access is deleted")
def test_two_sidecars_of_one_driver(bed: Testbed, name: str) -> None:
    account = granted(bed, name)["status"]["accountID"]
    bucket = bed.bucket_of(name)["metadata"]["name"]
    with second_sidecar(bed):
        bed.delete("bucketaccesses", name)
        bed.until_gone("bucketaccesses", [name])
        bed.until_quiet(quiet_s=4.0)
    sent = [e.fields["account_id"] for e in bed.driver.journal(Call.REVOKE_ACCESS)]
    assert 1 <= sent.count(account) <= 3
    assert "RecordLost" not in [event["reason"] for event in bed.events(bucket, "default")]


def raise_revision(bed: Testbed, above: int) -> None:
    """As `etcdutl snapshot restore --bump-revision --mark-compacted`."""
    connection = http.client.HTTPConnection(urlsplit(bed.plane.etcd_url).netloc, timeout=10)

    def ask(path: str, body: Json) -> Json:
        header = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), header)
        answer: Json = json.load(connection.getresponse())
        return answer

    revision, key = 0, base64.b64encode(b"raised").decode()
    while revision <= above:
        put = ask("/v3/kv/put", {"key": key, "value": key})
        revision = int(put["header"]["revision"])
    ask("/v3/kv/compaction", {"revision": revision})
    connection.close()


def signal_all(bed: Testbed, number: signal.Signals) -> None:
    for process in bed.processes.values():
        assert process.pid
        os.kill(process.pid, number)


def copy_of_running_etcd(bed: Testbed, data: Path, target: Path) -> None:
    """What a crash at this moment would leave."""
    etcd = bed.plane.pids["etcd"]
    os.kill(etcd, signal.SIGSTOP)
    shutil.copytree(data, target)
    os.kill(etcd, signal.SIGCONT)


def pause_and_stop_etcd(bed: Testbed) -> None:
    """Processes that run would meet an API server that starts, and that refuses their watches."""
    signal_all(bed, signal.SIGSTOP)
    bed.plane.stop_apiserver(grace_s=0.5)
    bed.plane.stop_etcd()


@pytest.mark.attack("etcd is restored with a raised revision while the operator runs")
def test_etcd_is_restored_with_a_raised_revision() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(Path(directory), operator=False) as bed,
    ):
        # With leader election, an outage of 10 s ends a process; the next one lists anew.
        for role in ("controller", "sidecar"):
            bed.start_process(role, "--leader-elect=false")
        granted(bed, "x")
        bed.until_quiet()
        (data,) = bed.plane.directory.glob("etcd-*")
        saved = Path(directory) / "saved"
        copy_of_running_etcd(bed, data, saved)
        add_access(bed, "a2", "x")
        bed.until_ready("bucketaccesses", ["a2"])
        bed.until_quiet()
        newest = int(bed.get("bucketaccesses", "a2")["metadata"]["resourceVersion"])

        pause_and_stop_etcd(bed)
        shutil.rmtree(data)
        shutil.copytree(saved, data)
        bed.plane.start_etcd()
        raise_revision(bed, newest + 100)
        bed.plane.start_apiserver()
        assert bed.find("bucketaccesses", "a2") is None
        signal_all(bed, signal.SIGCONT)
        add_access(bed, "a3", "x")
        bed.until_ready("bucketaccesses", ["a3"])
        bed.until_quiet()
        assert lives(bed, bed.get("bucketaccesses", "a3"))
        assert len(bed.driver.accounts()) == 2  # of x and a3
