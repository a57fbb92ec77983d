"""Accounts that several accesses use, and accounts that only a deletion learns of."""

import pytest
from tests.attacks.test_bindings import accounts, revoked
from tests.attacks.test_removed_by_force import strip
from tests.attacks.test_tenants import granted, write_status

from cosi_operator.api.record import RECORD_ANNOTATION
from cosi_operator.outcome import Call
from cosi_operator.plan import names
from testbed import Testbed, access_body, claim_body


def add_access(bed: Testbed, name: str, claim: str) -> None:
    """An access of the class with the claim's name."""
    bed.create("bucketaccesses", access_body(name, class_name=claim, claim=claim))


def two_with_one_account(bed: Testbed, name: str) -> str:
    """A claim and two accesses, whose account is returned."""
    account = f"{name}-user"
    bed.make_classes(name, parameters={"case": name})
    reply = {"account_id": account}
    bed.driver.set_rule(Call.GRANT_ACCESS, match={"parameters.case": name}, reply_fields=reply)
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    for access in (f"{name}-a1", f"{name}-a2"):
        add_access(bed, access, name)
        bed.until_ready("bucketaccesses", [access])
    return account


def stop_both(bed: Testbed) -> None:
    for role in ("sidecar", "controller"):
        bed.processes[role].stop(grace_s=10)


def start_both(bed: Testbed) -> None:
    for role in ("controller", "sidecar"):
        bed.start_process(role)
    bed.until_leading("controller", "sidecar")


def told(bed: Testbed, name: str) -> str:
    """What all Warnings about the account of this access say."""
    events = bed.events(name)
    return " ".join(e["message"] for e in events if e["reason"] == "BackendUnverified")


@pytest.mark.attack(
    "a new access has the account of two of the Go pair's accesses, and is deleted; it is kept"
)
def test_the_account_of_accesses_from_before_the_record(bed: Testbed, name: str) -> None:
    account = two_with_one_account(bed, name)
    bucket = bed.bucket_of(name)["metadata"]["name"]
    stop_both(bed)
    bed.edit("buckets", bucket, lambda b: b["metadata"]["annotations"].pop(RECORD_ANNOTATION))
    start_both(bed)
    bed.until_reason("bucketaccesses", f"{name}-a1", "AccountContested")
    add_access(bed, f"{name}-a3", name)
    bed.until_ready("bucketaccesses", [f"{name}-a3"])
    bed.delete("bucketaccesses", f"{name}-a3")
    bed.until_gone("bucketaccesses", [f"{name}-a3"])
    bed.until_quiet()
    assert account not in revoked(bed.driver)


@pytest.mark.attack(
    "a Bucket is removed by force; of its two accesses with one account one is deleted"
)
def test_the_account_of_a_live_access_of_a_lost_bucket(bed: Testbed, name: str) -> None:
    account = two_with_one_account(bed, name)
    bucket = bed.bucket_of(name)["metadata"]["name"]
    bed.delete("buckets", bucket)
    bed.edit("buckets", bucket, lambda b: b["metadata"].pop("finalizers"))
    bed.until("the Bucket to be gone", lambda: bed.find("buckets", bucket) is None)
    bed.until_quiet()
    bed.delete("bucketaccesses", f"{name}-a2")
    bed.until_gone("bucketaccesses", [f"{name}-a2"])
    bed.until_quiet()
    assert account not in revoked(bed.driver)


@pytest.mark.attack(
    "two accesses with one account are rotated at once; the driver returns other accounts"
)
def test_two_accesses_leave_their_account_at_once(bed: Testbed, name: str) -> None:
    account = two_with_one_account(bed, name)
    both = (f"{name}-a1", f"{name}-a2")
    bed.driver.clear_rules()
    bed.driver.set_rule(Call.GRANT_ACCESS, match={"parameters.case": name}, delay_s=0.3)
    for access in both:
        bed.annotate("bucketaccesses", access, rotate="1")

    def rotated() -> bool:
        statuses = [bed.get("bucketaccesses", access)["status"] for access in both]
        return account not in [status.get("accountID") for status in statuses]

    bed.until("both to be rotated", rotated)
    bed.until_quiet()
    assert account in revoked(bed.driver)


@pytest.mark.attack(
    "before the records exist, a status names the account of a victim whose claim is lost"
)
def test_a_status_that_is_forged_before_the_record(bed: Testbed, name: str) -> None:
    account = granted(bed, name)["status"]["accountID"]
    evil = bed.make_namespace(f"{name}-evil")
    bed.create("bucketclaims", claim_body("mine", class_name=name, namespace=evil), evil)
    bed.until_ready("bucketclaims", ["mine"], evil)
    stop_both(bed)
    body = access_body("forged", class_name=name, claim="mine", namespace=evil)
    body["metadata"]["finalizers"] = [names.ACCESS_FINALIZER]
    bed.create("bucketaccesses", body, evil)
    forged = {"accessGranted": True, "accountID": account}
    write_status(bed, "bucketaccesses", "forged", evil, forged)
    bed.plane.run_kubectl("annotate", "buckets", "--all", f"{RECORD_ANNOTATION}-")
    strip(bed, "bucketclaims", name)
    bed.delete("bucketclaims", name)
    start_both(bed)
    bed.until_quiet()
    bed.delete("bucketaccesses", "forged", evil)
    bed.until_gone("bucketaccesses", ["forged"], evil)
    bed.until_quiet()
    assert bed.find("bucketaccesses", name) is not None
    assert account not in revoked(bed.driver)


@pytest.mark.attack(
    "a driver creates an account at each Grant and refuses Revoke while an access is deleted"
)
def test_the_account_that_a_deletion_learns(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, reply="new_account")
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="INTERNAL", times=2)
    add_access(bed, name, name)
    bed.until_reason("bucketaccesses", name, "DriverInternal")
    uid = bed.get("bucketaccesses", name)["metadata"]["uid"]
    match = {"revoke_access_context.case": name}
    bed.driver.set_rule(Call.REVOKE_ACCESS, match=match, code="INTERNAL", times=2)
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name], timeout_s=60)
    bed.until_quiet()
    left = {account for account in accounts(bed) if uid in account}
    assert {account for account in left if account not in told(bed, name)} == set()


@pytest.mark.attack(
    "many accesses with unknown accounts are deleted at once; a slow driver creates accounts"
)
def test_accounts_that_deletions_learn_in_a_busy_lane(bed: Testbed, name: str) -> None:
    bed.make_classes(name, parameters={"case": name})
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    match = {"parameters.case": name}
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, code="INTERNAL")
    all_of = [f"{name}-{number}" for number in range(12)]
    for access in all_of:
        add_access(bed, access, name)
    for access in all_of:
        bed.until_reason("bucketaccesses", access, "DriverInternal")
    uids = {bed.get("bucketaccesses", access)["metadata"]["uid"] for access in all_of}
    bed.driver.clear_rules()
    bed.driver.set_rule(Call.GRANT_ACCESS, match=match, reply="new_account", delay_s=0.3)
    match = {"revoke_access_context.case": name}
    bed.driver.set_rule(Call.REVOKE_ACCESS, match=match, delay_s=0.3)
    for access in all_of:
        bed.delete("bucketaccesses", access)
    bed.until_gone("bucketaccesses", all_of, timeout_s=90)
    warned = " ".join(told(bed, access) for access in all_of)
    left = {account for account in accounts(bed) if any(uid in account for uid in uids)}
    assert {account for account in left if account not in warned} == set()
