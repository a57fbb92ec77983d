"""The configuration files and flags of a node's programs."""

import json
from pathlib import Path
from typing import Any

from controlplane import ControlPlane
from node.needs import CNI_PLUGINS

NAME = "node-1"
ADDRESS = "10.88.0.1"
BRIDGE = "node0"
PODS = "10.244.0.0/24"
DNS = "10.96.0.10"
"""Nothing answers there: no name is needed, since Services are in the environment of a Pod."""
PAUSE = "localhost/pause:1"
SOCKET = "/run/containerd/containerd.sock"

CONTAINERD = """
version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE no process may lower its score, and runc fails.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
"""


def write_containerd(directory: Path) -> Path:
    """Write containerd's configuration and that of its one network."""
    cni = directory / "cni"
    cni.mkdir(parents=True, exist_ok=True)
    (cni / "pods.conflist").write_text(json.dumps(network()))
    file = directory / "containerd.toml"
    root = directory / "containerd"
    file.write_text(
        CONTAINERD.format(root=root, socket=SOCKET, pause=PAUSE, plugins=CNI_PLUGINS, cni=cni)
    )
    return file


def network() -> dict[str, Any]:
    """A bridge on which each pod gets an address, and ports of the host if it asks for some."""
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def write_kubelet(directory: Path, cgroup: str) -> Path:
    """Write the KubeletConfiguration.

    Args:
        directory: of all the node's files.
        cgroup: name of an existing cgroup below which the kubelet makes those of its pods.
    """
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # Only the API server and pods of this namespace reach it.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        # The disk is the machine's: how full it is must not decide about pods.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "volumePluginDir": str(plugins(directory)),
    }
    file = directory / "kubelet.json"
    file.write_text(json.dumps(configuration))
    return file


def plugins(directory: Path) -> Path:
    """Where volume plugins would be, instead of a folder below /usr that is made when missing."""
    return directory / "volume-plugins"


def kubelet_flags(directory: Path, kubeconfig: Path, cgroup: str) -> list[str]:
    """Return the kubelet's arguments; writes its configuration."""
    return [
        f"--config={write_kubelet(directory, cgroup)}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={directory / 'kubelet'}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    ]


def controller_manager_flags(directory: Path, plane: ControlPlane) -> list[str]:
    """Return kube-controller-manager's arguments: every controller, one replica."""
    return [
        f"--kubeconfig={plane.admin_kubeconfig}",
        f"--service-account-private-key-file={plane.service_account_key}",
        f"--root-ca-file={plane.ca_file}",
        f"--flex-volume-plugin-dir={plugins(directory)}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def scheduler_flags(kubeconfig: Path) -> list[str]:
    """Return kube-scheduler's arguments."""
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"]


def proxy_flags(kubeconfig: Path) -> list[str]:
    """Return kube-proxy's arguments; the machine's size of the connection table stays."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NAME}",
        f"--cluster-cidr={PODS}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
    ]
