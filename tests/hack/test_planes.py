"""A control plane that a testbed leaves to the next one has nothing of the first in it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Testbed, planes
from testbed.bed import ROLES

RIGHTS = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def _asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reuse, with no control plane left from or to other tests."""
    monkeypatch.setenv("COSI_WARM_STARTS", "1")
    monkeypatch.setattr(planes, "_spares", {})
    yield
    planes._stop_all()


def used_bed(folder: Path, name: str) -> Testbed:
    """A testbed, operator included, in which a claim and an access are ready."""
    (folder / name).mkdir()
    bed = Testbed.start(folder / name)
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    bed.make_accesses([name], class_name=name)
    bed.until_ready("bucketaccesses", [name])
    return bed


@pytest.mark.usefixtures("_asked_for")
def test_next_testbed_finds_the_first_roles_and_nothing_that_was_made() -> None:
    with tempfile.TemporaryDirectory(prefix="cosi-") as folder:
        with used_bed(Path(folder), "a") as bed:
            pids = bed.plane.pids
            bed.plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
            bed.plane.api.call("POST", f"{RIGHTS}/clusterroles", {"metadata": {"name": "more"}})
        with used_bed(Path(folder), "b") as bed:
            assert bed.plane.pids == pids
            for plural in ("bucketclaims", "buckets", "bucketaccesses", "bucketclasses"):
                assert len(bed.all_of(plural)) == 1
            spaces = bed.plane.api.call("GET", "/api/v1/namespaces")["items"]
            assert "other" not in [space["metadata"]["name"] for space in spaces]
            roles = bed.plane.api.call("GET", f"{RIGHTS}/clusterroles")["items"]
            assert "more" not in [role["metadata"]["name"] for role in roles]
            assert not [entry for entry in bed.plane.audit.entries() if entry.name == "a"]
            assert bed.forbidden() == []


@pytest.mark.usefixtures("_asked_for")
@pytest.mark.parametrize("what", ["role changed", "API server restarted"])
def test_control_plane_is_stopped_when_its_state_is_not_known(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cosi-") as folder:
        with Testbed.start(Path(folder), operator=False) as bed:
            if what == "role changed":
                bed.plane.apply(ROLES["sidecar"].read_text().replace("update", "patch"))
            else:
                bed.plane.restart_apiserver()
            plane = bed.plane
        assert not plane.is_running
        assert not planes._spares
