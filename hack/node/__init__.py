"""A real Kubernetes node on this machine: kubelet, containerd, pods, in separate namespaces.

    with Sandbox(folder) as sandbox:  # as root, on Linux
        code = sandbox.run([sys.executable, "-m", "pytest", "tests/e2e"])

and in that command:

    with Node.start(directory) as node:
        node.load(archive)
        node.plane.run_kubectl("apply", "-f", "pods.yaml")

See README.md beside this file.
"""

from node.machine import Node
from node.needs import NodeError, missing
from node.sandbox import Sandbox

__all__ = ["Node", "NodeError", "Sandbox", "missing"]
