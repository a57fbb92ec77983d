"""What Argo CD (its Lua, really interpreted) and kstatus (the real library) make of our objects."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua55 import LuaRuntime

from controlplane.build import find
from cosi_operator.outcome import Call
from testbed import Testbed

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "gitops"


def kstatus(body: Any) -> str:
    """The first word that the kstatus library says: Current, InProgress, Failed, Terminating."""
    done = subprocess.run(
        [find("kstatus")], input=json.dumps(body), text=True, capture_output=True, check=True
    )
    return done.stdout.split()[0]


def argo(body: Any) -> tuple[str, str]:
    """Status and message of the script, as it stands in the ConfigMap patch for this kind."""
    patch = yaml.safe_load((FOLDER / "argocd-cm.yaml").read_text())
    customizations = yaml.safe_load(patch["data"]["resource.customizations"])
    script = customizations[f"objectstorage.k8s.io/{body['kind']}"]["health.lua"]
    lua = LuaRuntime()
    lua.globals().obj = lua.table_from(body, recursive=True)
    health = lua.execute(script)
    return str(health.status), str(health.message)


@pytest.fixture
def objects(bed: Testbed, name: str) -> dict[str, Any]:
    """One object of each state, as the real operator left it."""
    bed.driver.set_rule(
        Call.CREATE_BUCKET,
        match={"parameters.case": f"{name}-refused"},
        code="PERMISSION_DENIED",
        message="not for you",
    )
    bed.driver.set_rule(
        Call.CREATE_BUCKET, match={"parameters.case": f"{name}-broken"}, code="INTERNAL"
    )
    for case in ("ready", "refused", "broken"):
        bed.make_classes(f"{name}-{case}", parameters={"case": f"{name}-{case}"})
        bed.make_claims([f"{name}-{case}"], class_name=f"{name}-{case}")
    bed.make_accesses([f"{name}-ready"], class_name=f"{name}-ready")
    bed.make_claims([f"{name}-waiting"], class_name=f"{name}-absent")
    bed.until_ready("bucketaccesses", [f"{name}-ready"])
    bed.until_reason("bucketclaims", f"{name}-refused", "DriverPermissionDenied")
    bed.until_reason("bucketclaims", f"{name}-broken", "DriverInternal")
    bed.until_reason("bucketclaims", f"{name}-waiting", "BucketClassNotFound")
    return {
        "ready claim": bed.get("bucketclaims", f"{name}-ready"),
        "ready access": bed.get("bucketaccesses", f"{name}-ready"),
        "ready bucket": bed.bucket_of(f"{name}-ready"),
        "refused claim": bed.get("bucketclaims", f"{name}-refused"),
        "refused bucket": bed.bucket_of(f"{name}-refused"),
        "retried claim": bed.get("bucketclaims", f"{name}-broken"),
        "waiting claim": bed.get("bucketclaims", f"{name}-waiting"),
    }


def test_both_read_every_state_as_it_is_meant(objects: dict[str, Any]) -> None:
    seen = {what: (kstatus(body), argo(body)[0]) for what, body in objects.items()}
    assert seen == {
        "ready claim": ("Current", "Healthy"),
        "ready access": ("Current", "Healthy"),
        "ready bucket": ("Current", "Healthy"),
        "refused claim": ("Failed", "Degraded"),
        "refused bucket": ("Failed", "Degraded"),
        "retried claim": ("InProgress", "Progressing"),
        "waiting claim": ("InProgress", "Progressing"),
    }
    assert "not for you" in argo(objects["refused claim"])[1]


def test_a_change_that_was_not_seen_yet_is_in_progress(objects: dict[str, Any]) -> None:
    body = objects["ready claim"]
    body["metadata"]["generation"] += 1
    assert (kstatus(body), argo(body)[0]) == ("InProgress", "Progressing")


def test_without_conditions_ready_is_healthy_and_the_rest_is_progress(
    objects: dict[str, Any],
) -> None:
    ready = {**objects["ready claim"], "status": {"bucketReady": True, "bucketName": "b"}}
    assert argo(ready)[0] == "Healthy"
    assert argo({**ready, "status": {"bucketReady": False}})[0] == "Progressing"
    assert argo({key: value for key, value in ready.items() if key != "status"})[0] == "Progressing"


def test_kubectl_wait_sees_ready_and_stalled(bed: Testbed, objects: dict[str, Any]) -> None:
    for what, condition in (("ready claim", "Ready"), ("refused claim", "Stalled")):
        name = objects[what]["metadata"]["name"]
        out = bed.plane.run_kubectl(
            "wait", f"--for=condition={condition}", f"bucketclaim/{name}", "-n", "team",
            "--timeout=5s",
        )  # fmt: skip
        assert "condition met" in out
