"""The roles for tenants on a real API server: what they allow, and to which roles they are added.

No kube-controller-manager runs here, so the rules are not copied into view, edit and admin. The
tests compare the labels with the selectors of these roles, and bind our roles directly.
"""

from itertools import product

import pytest
from tests.chart.test_cluster import IN_NAMESPACE
from tests.chart.test_rendered import of_kind

from chart_outputs import RELEASE, Helm, Object
from controlplane import ControlPlane
from cosi_operator.api.resources import GROUP

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")
OBJECTS = ("bucketclaims", "bucketaccesses")
CLASSES = ("bucketclasses", "bucketaccessclasses")
NEVER = ("buckets", "buckets/status", "bucketclaims/status", "bucketaccesses/status")
SPACE = "team"


@pytest.fixture(scope="module")
def installed(plane: ControlPlane, helm: Helm, operator_chart: object) -> ControlPlane:
    """The chart with default values, and a namespace in which each of our roles has one user."""
    helm.run("install", RELEASE, str(operator_chart), *IN_NAMESPACE)
    plane.run_kubectl("create", "namespace", SPACE)
    for role in ("view", "edit"):
        plane.run_kubectl(
            "create", "rolebinding", role, f"--clusterrole={RELEASE}-{role}", f"--user={role}",
            f"--namespace={SPACE}",
        )  # fmt: skip
    return plane


def allowed(plane: ControlPlane, user: str, namespace: str = SPACE) -> set[tuple[str, str]]:
    """The (verb, resource) pairs that the API server grants a user who is in no other group."""
    asked = product((*READ, *WRITE), (*OBJECTS, *CLASSES, *NEVER))
    return {(verb, target) for verb, target in asked if _may(plane, user, namespace, verb, target)}


def _may(plane: ControlPlane, user: str, namespace: str, verb: str, target: str) -> bool:
    resource, _, subresource = target.partition("/")
    attributes = {"group": GROUP, "verb": verb, "resource": resource}
    attributes |= {"subresource": subresource} if subresource else {}
    attributes |= {} if resource in (*CLASSES, "buckets") else {"namespace": namespace}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    spec = {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes}
    answer = plane.api.call("POST", path, {"spec": spec})
    return bool(answer["status"]["allowed"])


CLASS_READS = set(product(READ, CLASSES))


@pytest.mark.parametrize(
    ("user", "namespace", "pairs"),
    [
        pytest.param("view", SPACE, set(product(READ, OBJECTS)), id="view -> reads its objects"),
        pytest.param("edit", SPACE, set(product(WRITE, OBJECTS)), id="edit -> writes its objects"),
        pytest.param("edit", "default", set(), id="edit, another namespace -> nothing"),
        pytest.param("stranger", SPACE, set(), id="user without a role -> classes only"),
    ],
)
def test_a_tenant_has_exactly_these_rights_and_reads_classes(
    installed: ControlPlane, user: str, namespace: str, pairs: set[tuple[str, str]]
) -> None:
    assert allowed(installed, user, namespace) == pairs | CLASS_READS


def selects(role: Object, labels: Object) -> bool:
    """Whether the aggregation rule of a ClusterRole takes a ClusterRole with these labels."""
    selectors = role["aggregationRule"]["clusterRoleSelectors"]
    return any(one["matchLabels"].items() <= labels.items() for one in selectors)


@pytest.mark.parametrize(
    ("ours", "aggregated_to"),
    [
        ("view", {"view", "edit", "admin"}),
        ("edit", {"edit", "admin"}),
        ("class-reader", set()),
        ("controller", set()),
        ("sidecar", set()),
    ],
)
def test_kubernetes_adds_the_rules_to_these_of_its_roles(
    installed: ControlPlane, ours: str, aggregated_to: set[str]
) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    labels = installed.api.call("GET", f"{path}/{RELEASE}-{ours}")["metadata"]["labels"]
    theirs = {
        name
        for name in ("view", "edit", "admin")
        if selects(installed.api.call("GET", f"{path}/{name}"), labels)
    }
    assert theirs == aggregated_to


def test_no_role_and_no_reader_of_classes_is_made_when_asked(texts: dict[str, str]) -> None:
    assert of_kind(texts["least"], "ClusterRole") == []
    names = [found["metadata"]["name"] for found in of_kind(texts["names"], "ClusterRole")]
    assert sorted(names) == [
        "buckets-controller",
        "buckets-edit",
        "buckets-sidecar",
        "buckets-view",
    ]
