"""What may be left on a backend is told where somebody can still read it."""

import json

import pytest
from tests.attacks.test_bindings import accounts

from cosi_operator.outcome import Call
from testbed import Testbed, access_body, claim_body


@pytest.mark.attack("a namespace is deleted with an account whose id is not known; it is told")
def test_an_account_that_a_deleted_namespace_leaves_is_told_on_the_bucket(
    shared_bed: Testbed, name: str
) -> None:
    """The API server refuses Events in a namespace that is being deleted."""
    bed, mark = shared_bed, shared_bed.plane.audit.mark()
    bed.driver.run()
    bed.driver.clear_rules()
    bed.make_classes(name, parameters={"case": name})
    space = bed.make_namespace(f"{name}-space")
    bed.create("bucketclaims", claim_body(name, class_name=name, namespace=space), space)
    bed.until_ready("bucketclaims", [name], space)
    bucket = bed.bucket_of(name, space)["metadata"]["name"]
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="INTERNAL", act=True)
    bed.create("bucketaccesses", access_body(name, class_name=name, namespace=space), space)
    bed.until_reason("bucketaccesses", name, "DriverInternal", namespace=space)
    uid = bed.get("bucketaccesses", name, space)["metadata"]["uid"]
    bed.driver.clear_rules()
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="PERMISSION_DENIED")
    bed.plane.run_kubectl("delete", "namespace", space, "--wait=false")
    bed.delete("bucketaccesses", name, space)
    bed.until_gone("bucketaccesses", [name], space, timeout_s=60)
    assert [account for account in accounts(bed) if uid in account], "it is left"

    def is_told() -> bool:
        events = json.loads(bed.plane.run_kubectl("get", "events", "-n=default", "-o=json"))
        return any(
            event["involvedObject"]["name"] == bucket and uid in event["message"]
            for event in events["items"]
        )

    bed.until("the Event on the Bucket", is_told)
    bed.delete("bucketclaims", name, space)
    bed.until_gone("bucketclaims", [name], space)
    refused = bed.forbidden(since=mark)
    assert refused
    assert all(f"namespaces/{space}/events" in request for request in refused)
