"""The first steps: start everything, each part checked before the next one needs it."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from pathlib import Path

from controlplane import ApiError, ControlPlane
from demo.screen import Screen
from demo.world import NAMESPACE, STOP_GRACE_S, World
from refdriver import RefDriver
from seaweed import SeaweedFS
from testbed.process import ROOT, operator_process, service_account

ROLES = {"controller": "controller.yaml", "sidecar": "sidecar.yaml"}
START_TIMEOUT_S = 20.0


def start(screen: Screen, directory: Path, stack: ExitStack) -> World:
    """Start all parts; `stack` ends them in reverse order.

    Raises:
        CheckError, StartError, KubectlError, OSError: with what was started on `stack`.
    """
    with screen.step("A Kubernetes API server and etcd, the real ones"):
        plane = stack.enter_context(ControlPlane.start(directory / "controlplane"))
        version = plane.api.call("GET", "/version")["gitVersion"]
        screen.check(plane.is_running, f"Kubernetes {version} serves at {plane.server_url}")
    with screen.step("A real S3 service: SeaweedFS"):
        storage = stack.enter_context(SeaweedFS.start(directory / "seaweedfs"))
        screen.check(
            storage.buckets() == [] and storage.users() == [],
            f"S3 and IAM answer at {storage.endpoint}; no buckets, no users",
        )
    with screen.step("The custom resources, and the roles of the two processes"):
        _apply_crds(screen, plane)
        accounts = {role: _apply_role(screen, plane, role) for role in ROLES}
        plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    with screen.step("A COSI driver, the reference one"):
        driver = stack.enter_context(RefDriver.start(directory / "driver", storage.account))
        screen.check(
            {(call.call, call.code) for call in driver.calls()} == {("DriverGetInfo", "OK")},
            f"{driver.name} answers on its Unix socket",
        )
    world = World(
        screen=screen,
        directory=directory,
        plane=plane,
        storage=storage,
        driver=driver,
        operator=[],
        users=[f"system:serviceaccount:{space}:{name}" for space, name in accounts.values()],
    )
    with screen.step("The operator: cosi-controller and cosi-sidecar, each under its own role"):
        _start_operator(world, accounts, stack)
    return world


def _apply_crds(screen: Screen, plane: ControlPlane) -> None:
    screen.command("kubectl apply --server-side -f deploy/crds")
    applied = plane.apply(ROOT / "deploy" / "crds")
    served = [name for name in applied if name.startswith("customresourcedefinition")]
    screen.check(len(served) >= 5, f"{len(served)} kinds are served")


def _apply_role(screen: Screen, plane: ControlPlane, role: str) -> tuple[str, str]:
    """Apply the manifest of a role; return the namespace and name of its service account."""
    file = ROOT / "deploy" / "rbac" / ROLES[role]
    account = service_account(file)
    plane.token_for(*account)  # makes the namespace, which a chart or a person makes elsewhere
    screen.command(f"kubectl apply --server-side -f {file.relative_to(ROOT)}")
    plane.apply(file)
    may = plane.run_kubectl(
        "auth", "can-i", "get", "bucketclaims.objectstorage.k8s.io", "--all-namespaces",
        f"--as=system:serviceaccount:{account[0]}:{account[1]}",
    )  # fmt: skip
    screen.check(may.strip() == "yes", f"the {role}'s account {'/'.join(account)} has its role")
    return account


def _start_operator(
    world: World, accounts: Mapping[str, tuple[str, str]], stack: ExitStack
) -> None:
    arguments = {"controller": [], "sidecar": [f"--driver-addr={world.driver.address}"]}
    leases = {
        "controller": "leader-lock-cosi-controller-manager",
        "sidecar": f"{world.driver.name.replace('.', '-')}-cosi",
    }
    for role, account in accounts.items():
        process = operator_process(
            role,
            arguments[role],
            kubeconfig=world.plane.kubeconfig_for(*account),
            namespace=account[0],
            logs=world.directory,
        )
        world.screen.command(" ".join([process.name, "--kubeconfig=...", *arguments[role]]))
        stack.callback(process.stop, grace_s=STOP_GRACE_S)
        process.start()
        world.operator.append(process)
    for process, role in zip(world.operator, accounts, strict=True):
        lease = f"namespaces/{accounts[role][0]}/leases/{leases[role]}"
        process.wait_until(partial(_is_held, world, lease), timeout_s=START_TIMEOUT_S)
        world.screen.check(process.is_running, f"{process.name} runs and leads: {lease}")


def _is_held(world: World, lease: str) -> bool:
    try:
        found = world.get(f"/apis/coordination.k8s.io/v1/{lease}")
    except ApiError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return False
        raise
    return bool(found["spec"].get("holderIdentity"))
