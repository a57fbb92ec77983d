"""A control plane, a mock driver and the operator's two processes, for tests and benchmarks.

Everything is real: etcd, kube-apiserver, the roles of `deploy/rbac`, a driver on a Unix socket,
and the controller and the sidecar as separate processes, each under its own ServiceAccount.

Example:
    with Testbed.start(tmp_path) as bed:
        bed.make_classes("gold")
        bed.make_claims(["photos"], class_name="gold")
        bed.until_ready("bucketclaims", ["photos"])
        assert bed.driver.calls(Call.CREATE_BUCKET) == 1
        assert bed.forbidden() == []
"""

from testbed.bed import Testbed as Testbed
from testbed.objects import NAMESPACE as NAMESPACE
from testbed.objects import access_body as access_body
from testbed.objects import claim_body as claim_body
from testbed.objects import condition as condition
from testbed.objects import reasons as reasons
from testbed.process import operator_process as operator_process
from testbed.process import service_account as service_account
