"""An admission webhook does not answer: each object that waits for its write says so."""

import json

import pytest
from tests.attacks.test_bindings import accounts

from cosi_operator.plan import names
from testbed import Testbed, access_body, claim_body


@pytest.mark.attack("the admission webhook for an access's writes is down; the access says so")
def test_an_access_whose_writes_a_dead_webhook_refuses_says_so(
    shared_bed: Testbed, name: str
) -> None:
    bed = shared_bed
    bed.driver.run()
    bed.driver.clear_rules()
    bed.make_classes(name, parameters={"case": name})
    space = bed.make_namespace(f"{name}-space")
    bed.create("bucketclaims", claim_body(name, class_name=name, namespace=space), space)
    bed.until_ready("bucketclaims", [name], space)
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "check.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/check"},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["secrets"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    bed.plane.run_kubectl("create", "-f", "-", input=json.dumps(webhook))
    try:
        bed.create("bucketaccesses", access_body(name, class_name=name, namespace=space), space)
        said = bed.until_reason("bucketaccesses", name, "APIServerUnavailable", space)
        assert "failed calling webhook" in said["message"]
        assert said["message"] in bed.until_event(name, "APIServerUnavailable", namespace=space)
    finally:
        bed.plane.run_kubectl("delete", "validatingwebhookconfiguration", name)
    retry = f"{names.RETRY_ANNOTATION}=1"  # not to wait until the next attempt
    bed.plane.run_kubectl("annotate", "bucketaccess", name, f"-n={space}", retry)
    bed.until_ready("bucketaccesses", [name], space)
    uid = bed.get("bucketaccesses", name, space)["metadata"]["uid"]
    assert len([account for account in accounts(bed) if uid in account]) == 1
