"""The configuration files and flags of a node's programs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane import ControlPlane
from node.needs import CNI_PLUGINS

NAME = "node-{number}"
ADDRESS = "10.88.0.{number}"
FIRST_ADDRESS = "10.88.0.1"
"""Of the first node, where the API server is too."""
BRIDGE = "node0"
PODS = "10.244.0.0/24"
DNS = "10.96.0.10"
"""Nothing answers there: no name is needed, since Services are in the environment of a Pod."""
PAUSE = "localhost/pause:1"

CONTAINERD = """
version = 2
root = "{root}"
state = "{state}"
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


@dataclass(frozen=True, slots=True)
class Place:
    """Names and folders of one node.

    Args:
        number: 1 for the first.
        directory: for its files.
        cgroup: name of an existing cgroup below which the kubelet makes those of its pods.
    """

    number: int
    directory: Path
    cgroup: str

    @property
    def name(self) -> str:
        return NAME.format(number=self.number)

    @property
    def address(self) -> str:
        return ADDRESS.format(number=self.number)

    @property
    def state(self) -> Path:
        """Of containerd; that of the first node is where `ctr` looks."""
        return Path("/run/containerd" if self.number == 1 else f"/run/containerd-{self.number}")

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def plugins(self) -> Path:
        """Where volume plugins would be, instead of a folder below /usr that is made if missing."""
        return self.directory / "volume-plugins"


def write_containerd(place: Place) -> Path:
    """Write containerd's configuration and that of its one network, which all nodes share."""
    cni = place.directory / "cni"
    cni.mkdir(parents=True, exist_ok=True)
    (cni / "pods.conflist").write_text(json.dumps(network()))
    file = place.directory / "containerd.toml"
    file.write_text(
        CONTAINERD.format(
            root=place.directory / "containerd",
            state=place.state,
            socket=place.socket,
            pause=PAUSE,
            plugins=CNI_PLUGINS,
            cni=cni,
        )
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


def write_kubelet(place: Place) -> Path:
    """Write the KubeletConfiguration."""
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{place.socket}",
        "address": place.address,
        "healthzPort": 0,  # one port for all nodes
        # Only the API server and pods of this namespace reach it.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup}",
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
        # A kubelet removes logs of pods that it does not know, so nodes share no folder.
        "podLogsDir": str(place.directory / "pod-logs"),
        "volumePluginDir": str(place.plugins),
    }
    file = place.directory / "kubelet.json"
    file.write_text(json.dumps(configuration))
    return file


def kubelet_flags(place: Place, kubeconfig: Path) -> list[str]:
    """Return the kubelet's arguments; writes its configuration."""
    return [
        f"--config={write_kubelet(place)}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={place.directory / 'kubelet'}",
        f"--hostname-override={place.name}",
        f"--node-ip={place.address}",
    ]


def controller_manager_flags(place: Place, plane: ControlPlane) -> list[str]:
    """Return kube-controller-manager's arguments: every controller, one replica."""
    return [
        f"--kubeconfig={plane.admin_kubeconfig}",
        f"--service-account-private-key-file={plane.service_account_key}",
        f"--root-ca-file={plane.ca_file}",
        f"--flex-volume-plugin-dir={place.plugins}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def scheduler_flags(kubeconfig: Path) -> list[str]:
    """Return kube-scheduler's arguments."""
    return [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"]


def proxy_flags(place: Place, kubeconfig: Path) -> list[str]:
    """Return kube-proxy's arguments; one is enough, because all nodes share their network.

    The machine's size of the connection table stays.
    """
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={place.name}",
        f"--cluster-cidr={PODS}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
    ]
