"""`cosi` and `kubectl cosi` as processes against a real API server, as an administrator and as a
tenant who has rights in one namespace and nowhere else.
"""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cases import misbehave, prepare, until_told

import warm
from controlplane.daemon import coverage_variables
from cosi_operator.outcome import Call
from testbed import Testbed, access_body, condition
from testbed.process import ROOT

TENANT_ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: NAMESPACE}
rules:
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketclaims, bucketaccesses]
  verbs: [get, list, create, update, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: ServiceAccount, name: tenant, namespace: NAMESPACE}]
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed, and its exit code."""

    out: str
    note: str
    code: int

    @property
    def tree(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a kubeconfig and `kubectl-cosi` on the PATH."""

    bed: Testbed
    kubeconfig: Path
    folder: Path

    def cosi(self, *words: str) -> Ran:
        """Run `cosi WORDS`."""
        return _ran(warm.run_cosi(words, environment=self._environment(), timeout_s=30))

    def kubectl_cosi(self, *words: str) -> Ran:
        """Run `kubectl cosi WORDS`, through the real kubectl."""
        done = subprocess.run(
            [str(self.bed.plane.kubectl), "cosi", *words],
            capture_output=True,
            text=True,
            env={**self._environment(), **coverage_variables()},
            check=False,
            timeout=30,
        )
        return _ran(done)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder}{os.pathsep}{os.defpath}",
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.folder),
        }


def _ran(done: subprocess.CompletedProcess[str]) -> Ran:
    assert "Traceback" not in done.stderr
    return Ran(done.stdout, done.stderr, done.returncode)


def person(bed: Testbed, folder: Path, kubeconfig: Path) -> Person:
    script = folder / "kubectl-cosi"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom cosi_operator.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return Person(bed, kubeconfig, folder)


@pytest.fixture
def admin(bed: Testbed, tmp_path: Path) -> Person:
    return person(bed, tmp_path, bed.plane.admin_kubeconfig)


@pytest.fixture
def tenant(bed: Testbed, name: str, tmp_path: Path) -> Person:
    """Rights in the namespace of the test's name alone, which is also the context's."""
    bed.make_namespace(name)
    bed.plane.apply(TENANT_ROLE.replace("NAMESPACE", name))
    return person(bed, tmp_path, bed.plane.kubeconfig_for(name, "tenant"))


def refused_and_ready(bed: Testbed, name: str, namespace: str) -> tuple[str, str]:
    """A claim that is refused, with an access that waits for it, and a claim that is ready."""
    bad, good = f"{name}-bad", f"{name}-good"
    misbehave(bed, bad, Call.CREATE_BUCKET, code="INVALID_ARGUMENT", message="no such region")
    for case in (bad, good):
        bed.make_classes(case, parameters={"case": case})
        bed.make_claims([case], class_name=case, namespace=namespace)
        bed.create(
            "bucketaccesses",
            access_body(case, class_name=case, namespace=namespace),
            namespace=namespace,
        )
    bed.until_reason("bucketclaims", bad, "DriverInvalidArgument", namespace)
    bed.until_ready("bucketaccesses", [good], namespace)
    return bad, good


def test_status_lists_what_is_not_ready_and_nothing_else(
    bed: Testbed, name: str, admin: Person
) -> None:
    bad, good = refused_and_ready(bed, name, "team")
    ran = admin.cosi("status", "-n", "team")
    assert ran.code == 1
    line = next(line for line in ran.out.splitlines() if f"BucketClaim   {bad} " in line)
    assert "failed" in line
    assert "DriverInvalidArgument" in line
    assert "no such region" in line or "DriverCreateBucket failed" in line
    assert f" {good} " not in ran.out
    rows = admin.kubectl_cosi("status", "-A", "-o", "json").tree["notReady"]
    found = {(row["kind"], row["name"]): row for row in rows if row["name"] in (bad, good)}
    assert set(found) == {("BucketClaim", bad), ("BucketAccess", bad)}
    assert found["BucketClaim", bad]["state"] == "failed"


def test_why_names_the_failing_link_the_drivers_words_and_what_to_do(
    bed: Testbed, name: str, admin: Person
) -> None:
    bad, good = refused_and_ready(bed, name, "team")
    ran = admin.cosi("why", bad, "-n", "team")
    assert ran.code == 1
    assert ran.out.splitlines()[0].startswith(
        f"BucketClaim team/{bad}: not ready, because of Bucket"
    )
    assert "DriverCreateBucket -> INVALID_ARGUMENT" in ran.out
    assert "no such region" in ran.out
    assert f"  then run   cosi retry {bad} -n team\n" in ran.out
    chain = admin.cosi("why", bad, "-n", "team", "-o", "json").tree
    assert [link["kind"] for link in chain["links"]] == [
        "BucketClass", "BucketClaim", "Bucket", "BucketAccessClass", "BucketAccess", "Secret",
    ]  # fmt: skip
    assert [link["kind"] for link in chain["links"] if link["isCause"]] == ["Bucket"]
    well = admin.kubectl_cosi("why", f"bucketaccess/{good}", "-n", "team")
    assert (well.code, well.out.splitlines()[0]) == (0, f"BucketAccess team/{good}: ready")
    none = admin.cosi("why", "nobody", "-n", "team")
    assert (none.code, none.out) == (2, "")
    assert "there is no such object" in none.note


def test_retry_is_one_more_try_and_leaves_alone_what_is_ready(
    bed: Testbed, name: str, admin: Person
) -> None:
    bad, good = refused_and_ready(bed, name, "team")
    bed.driver.clear_rules()
    assert "there is nothing to try again" in admin.cosi("retry", good, "-n", "team").out
    ran = admin.kubectl_cosi("retry", bad, "-n", "team")
    assert (ran.code, ran.note) == (0, "")
    bed.until_ready("bucketclaims", [bad])
    bed.until_ready("bucketaccesses", [bad])
    assert admin.cosi("why", bad, "-n", "team").code == 0


def granted(bed: Testbed, name: str) -> str:
    """Make a class, a claim and a granted access of one name; return the name of the Secret."""
    bed.make_classes(name)
    bed.make_claims([name], class_name=name, namespace=name)
    access = access_body(name, class_name=name, namespace=name)
    bed.create("bucketaccesses", access, namespace=name)
    bed.until_ready("bucketaccesses", [name], name)
    return str(access["spec"]["credentialsSecretName"])


def test_a_secret_removed_by_hand_is_noticed_by_status_and_why_and_a_retry_makes_new_keys(
    bed: Testbed, name: str, tenant: Person
) -> None:
    secret = granted(bed, name)
    old = bed.get("secrets", secret, name)
    bed.delete("secrets", secret, name)  # the finalizer keeps it
    kept = tenant.cosi("why", f"bucketaccess/{name}")
    assert kept.code == 1
    assert "its finalizer keeps it" in " ".join(kept.out.split())
    assert f"kubectl patch secret {secret} -n {name} --type=merge" in kept.out
    assert "is being deleted" in tenant.cosi("retry", f"bucketaccess/{name}").out
    patch = shlex.split(kept.out.rpartition("then run")[2])[1:]
    subprocess.run(
        [str(bed.plane.kubectl), "--kubeconfig", str(bed.plane.admin_kubeconfig), *patch],
        check=True, timeout=30, capture_output=True,
    )  # fmt: skip
    status = tenant.cosi("status")
    assert status.code == 1
    assert f"Secret {secret} is gone" in status.out
    why = tenant.cosi("why", f"bucketaccess/{name}")
    assert why.code == 1
    assert f"not ready, because of Secret {name}/{secret}" in why.out
    command = why.out.rpartition("then run")[2].split()
    assert command == ["cosi", "retry", f"bucketaccess/{name}", "-n", name]
    assert "will be tried again" in tenant.cosi(*command[1:]).out
    bed.until("a new Secret", lambda: bed.find("secrets", secret, name) is not None)
    assert bed.get("secrets", secret, name)["data"] != old["data"]
    bed.until("no complaint", lambda: tenant.cosi("status").code == 0)


def test_rotate_asks_for_new_keys_and_the_access_says_that_the_driver_returned_the_same(
    bed: Testbed, name: str, tenant: Person
) -> None:
    secret = granted(bed, name)
    old = bed.get("secrets", secret, name)
    assert "asks for new keys" in tenant.cosi("rotate", name).out
    words = "The keys were not rotated, because the driver returned the same keys."

    def message() -> str:
        found = condition(bed.get("bucketaccesses", name, name)).get("message", "")
        return str(found)

    bed.until("the access to say it", lambda: words in message())
    new = bed.get("secrets", secret, name)
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    assert new["data"] == old["data"]


def test_drivers_counts_what_each_driver_has(bed: Testbed, name: str, admin: Person) -> None:
    bad, good = refused_and_ready(bed, name, "team")
    ran = admin.cosi("drivers")
    line = next(line for line in ran.out.splitlines() if line.startswith(bed.driver.name))
    assert bad in line
    (row,) = [
        row
        for row in admin.cosi("drivers", "-o", "json").tree["drivers"]
        if row["driver"] == bed.driver.name
    ]
    assert {bad, good} <= set(row["classes"])
    assert row["failed"] >= 1
    sidecar = row["sidecar"]
    assert (sidecar["state"], sidecar["policy"]) == ("up", "conservative")
    assert sidecar["version"]
    shown = admin.cosi("drivers", "-o", "wide").out.splitlines()
    assert {"SIDECAR", "SINCE", "VERSION", "POLICY"} <= set(shown[0].split())


def test_drivers_says_whether_the_sidecar_of_a_driver_runs(
    bed: Testbed, name: str, admin: Person
) -> None:
    bed.make_classes(name)

    def sidecar() -> tuple[str, str]:
        rows = [line.split() for line in admin.cosi("drivers").out.splitlines()]
        (row,) = (row for row in rows if row[0] == bed.driver.name)
        return row[1], row[2]

    state, since = sidecar()
    assert state == "up"
    assert since[-1] in "smh"
    bed.processes["sidecar"].stop(grace_s=10)  # frees its Lease
    state, since = sidecar()
    assert state == "down"
    assert since.endswith("s")
    bed.start_process("sidecar")
    bed.until_leading("sidecar")
    assert sidecar()[0] == "up"


def test_a_tenant_sees_the_failure_and_is_told_what_could_not_be_seen(
    bed: Testbed, name: str, tenant: Person
) -> None:
    bad, good = refused_and_ready(bed, name, name)
    ran = tenant.cosi("status")
    assert ran.code == 1
    assert "DriverInvalidArgument" in ran.out
    assert bad in ran.out
    assert good not in ran.out
    why = tenant.kubectl_cosi("why", bad)
    assert why.code == 1
    first, *_ = why.out.splitlines()
    assert first == f"BucketClaim {name}/{bad}: not ready, because of BucketClaim {name}/{bad}"
    assert "no such region" in why.out
    assert "not visible" in why.out
    assert "you have no right to read it" in why.out
    chain = tenant.cosi("why", bad, "-o", "json").tree
    hidden = {link["kind"] for link in chain["links"] if link["state"] == "not visible"}
    assert hidden == {"BucketClass", "Bucket", "BucketAccessClass"}
    assert any(key.startswith("Bucket ") for key in chain["notSeen"])
    fine = tenant.cosi("why", good)
    assert fine.code == 0
    assert "everything that you may see is ready" in fine.out


def test_a_tenant_can_retry_a_claim_and_an_access_but_sees_no_cluster(
    bed: Testbed, name: str, tenant: Person
) -> None:
    bad, _ = refused_and_ready(bed, name, name)
    refused = tenant.cosi("retry", f"bucket/{bed.bucket_of(bad, name)['metadata']['name']}")
    assert refused.code == 2
    assert "you have no right" in refused.note
    everywhere = tenant.cosi("status", "-A")
    assert everywhere.code == 2
    assert "ask for one namespace: -n NAMESPACE" in everywhere.note
    elsewhere = tenant.cosi("status", "-n", "team")
    assert (elsewhere.code, elsewhere.out) == (2, "")
    assert "you may list neither claims nor accesses in namespace team" in elsewhere.note
    drivers = tenant.cosi("drivers")
    assert drivers.code == 2
    assert "you may list neither classes nor Buckets" in drivers.note
    bed.driver.clear_rules()
    assert tenant.cosi("retry", bad).code == 0
    bed.until_ready("bucketaccesses", [bad], name)
    assert tenant.cosi("status").out.startswith("All 4 objects in namespace")


def test_an_object_that_is_retried_says_when_and_one_that_is_deleted_says_what_holds_it(
    bed: Testbed, name: str, admin: Person
) -> None:
    retried, going = f"{name}-retried", f"{name}-going"
    misbehave(bed, retried, Call.CREATE_BUCKET, code="INTERNAL", message="backend is down")
    misbehave(bed, going, Call.DELETE_BUCKET, code="FAILED_PRECONDITION", message="not empty")
    cases = {retried: Call.CREATE_BUCKET, going: Call.DELETE_BUCKET}
    prepare(bed, cases)
    until_told(
        bed,
        {
            retried: (Call.CREATE_BUCKET, "DriverInternal"),
            going: (Call.DELETE_BUCKET, "DriverFailedPrecondition"),
        },
    )
    why = admin.cosi("why", retried, "-n", "team")
    assert "retried automatically with backoff; attempt" in why.out
    assert "backend is down" in why.out
    stuck = admin.cosi("why", going, "-n", "team")
    assert stuck.code == 1
    assert "not empty" in stuck.out
    assert "DriverDeleteBucket -> FAILED_PRECONDITION" in stuck.out
    assert "deleting" in stuck.out
    assert f"  then run   cosi retry {going} -n team\n" in stuck.out
    bed.driver.clear_rules()
    assert admin.cosi("retry", going, "-n", "team").code == 0
    bed.until_gone("bucketclaims", [going])


def test_a_server_that_is_away_and_a_cluster_without_cosi_end_in_a_sentence(
    bed: Testbed, tmp_path: Path
) -> None:
    config = bed.plane.admin_kubeconfig.read_text()
    wrong = tmp_path / "wrong.kubeconfig"
    wrong.write_text(config.replace(bed.plane.server_url, "https://127.0.0.1:1"))
    ran = person(bed, tmp_path, wrong).cosi("status")
    assert (ran.code, ran.out) == (2, "")
    assert ran.note.startswith("error: no answer from the API server")
