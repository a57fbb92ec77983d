"""Faults that long runs of tests/model/test_hostile.py found, with the shortest steps to each."""

import pytest
from tests.model.backend import Answer
from tests.model.test_hostile import Hostile

from cosi_operator.api.core import SECRETS
from cosi_operator.outcome import Code


def test_a_secret_changes_between_the_read_and_the_delete_and_is_released() -> None:
    state = Hostile()
    state.begin(destroyer="none", accounts="one for a bucket", locks=False)
    state.gitops_applies_the_static_bucket_again(name="c1", space="team")
    state.delete(name="a1")
    state.work_a_while(name="sidecar", steps=10)
    state.edits_the_bucket_info(name="a1", space="team")
    state.teardown()


def test_a_finalizer_is_stripped_while_the_driver_is_away_and_the_keys_are_revoked() -> None:
    state = Hostile()
    state.begin(destroyer="strips finalizers", accounts="one each", locks=False)
    state.driver_process(change="goes")
    state.delete(name="a1")
    state.strips_the_finalizers(kind="access", name="a1", space="team")
    state.all_work(seconds=1.0)
    state.teardown()


def test_a_copy_without_a_record_is_bound_elsewhere_and_deleted_and_the_data_stays() -> None:
    state = Hostile()
    state.begin(destroyer="replaces Buckets", accounts="one each", locks=False)
    state.another_claim(leads_to="gold", name="c2", space="team")
    state.a_bucket_is_replaced_without_its_record(index=0)
    state.a_bucket_is_copied(index=0, without=set())
    state.an_administrator_binds_a_bucket(index=1, name="c2", space="team")
    state.the_copy_of_a_bucket_is_deleted(forced=True)
    state.all_work(seconds=1.0)
    state.teardown()


def test_a_status_is_replaced_while_an_ignored_change_is_reported_and_ready_comes_first() -> None:
    state = Hostile()
    state.begin(destroyer="none", accounts="one each", locks=False)
    state.edit_class(driver=False, name="gold", tier="1")
    state.kill(name="controller")
    state.forges_the_status_of_a_claim(name="c1", space="team", victim=0)
    state.step(index=0, name="controller", steps=5)
    state.teardown()


def test_a_copy_and_its_namespace_are_deleted_and_its_finalizer_is_stripped() -> None:
    state = Hostile()
    state.begin(destroyer="strips finalizers", accounts="one each", locks=False)
    state.is_copied_into_a_drill(name="a1", with_secret=True)
    state.the_drill_is_thrown_away()
    state.strips_the_finalizers(kind="access", name="a1", space="drill")
    state.teardown()


def test_a_lost_bucket_is_replaced_by_one_that_is_being_deleted_and_the_keys_still_work() -> None:
    state = Hostile()
    state.begin(destroyer="removes Buckets", accounts="one each", locks=False)
    state.a_bucket_is_removed_by_force(index=0)
    state.delete_bucket(index=0)
    state.an_administrator_binds_a_bucket(index=0, name="c1", space="team")
    state.teardown()


def test_a_claim_that_is_bound_to_a_bucket_during_its_deletion_does_not_keep_it() -> None:
    """As docs/backup-and-restore.md says."""
    state = Hostile()
    state.begin(destroyer="none", accounts="one each", locks=False)
    state.delete(name="c1")
    state.delete_bucket(index=0)
    state.is_copied_into_a_drill(name="c1", with_secret=False)
    state.an_administrator_binds_a_bucket(index=0, name="c1", space="drill")
    state.an_administrator_binds_a_bucket(index=1, name="c1", space="team")
    state.all_work(seconds=1.0)
    state.teardown()


def test_a_bucket_is_removed_by_force_between_an_entry_and_its_grant() -> None:
    state = Hostile()
    state.begin(destroyer="removes Buckets", accounts="one each", locks=False)
    state.another_access(claim="c1", name="a2", space="team")
    state.work_a_while(name="sidecar", steps=7)
    state.a_bucket_is_removed_by_force(index=0)
    state.all_work(seconds=1.0)
    state.nothing_forbidden_happened()
    state.teardown()


def test_a_deletion_learns_an_account_that_another_access_has_got_and_leaves_it() -> None:
    state = Hostile()
    state.begin(destroyer="none", accounts="one for a bucket", locks=False)
    state.driver_will_grant_badly(answer=Answer(empty_id=True))
    state.another_access(claim="c1", name="a2", space="team")
    state.all_work(seconds=1.0)
    state.driver_heals()
    state.delete(name="a2")
    state.all_work(seconds=1.0)
    state.nothing_forbidden_happened()
    state.teardown()


def test_the_original_of_a_copy_is_deleted_and_no_bucket_is_made_for_the_copy() -> None:
    state = Hostile()
    state.begin(destroyer="none", accounts="one each", locks=False)
    state.a_bucket_is_copied(index=0, without={"annotations"})
    state.delete(name="c1")
    state.teardown()


def test_the_keys_of_a_replaced_bucket_leave_no_secret_when_no_new_keys_can_be_granted() -> None:
    state = Hostile()
    state.begin(accounts="one each", destroyer="removes Buckets", locks=False)
    state.a_bucket_is_removed_by_force(index=0)
    state.access_class_goes_or_comes(there=False)
    state.an_administrator_binds_a_bucket(index=0, name="c1", space="team")
    state.all_work(seconds=60.0)
    assert not state.world.api.list(SECRETS)
    state.a_bucket_is_removed_by_force(index=0)
    state.teardown()


def test_an_account_that_is_created_again_without_credentials_is_revoked() -> None:
    state = Hostile()
    state.begin(accounts="one each", destroyer="removes Buckets", locks=False)
    state.a_bucket_is_removed_by_force(index=0)
    state.driver_will_grant_badly(answer=Answer(code=Code.OK, acts=True, no_credentials=True))
    state.an_administrator_binds_a_bucket(index=0, name="c1", space="team")
    state.all_work(seconds=60.0)
    state.delete(name="c1")
    state.teardown()


@pytest.mark.parametrize("steps", range(3, 9))
def test_a_record_is_lost_around_the_first_write_of_an_entry(steps: int) -> None:
    state = Hostile()
    state.begin(accounts="one each", destroyer="replaces Buckets", locks=False)
    state.driver_process(change="goes")
    state.create_access(claim="c1", name="a3", own_secret=True)
    state.all_work(seconds=1.0)
    state.driver_process(change="is replaced")
    state.step(index=0, name="sidecar", steps=steps)
    state.a_bucket_is_replaced_without_its_record(index=0)
    state.teardown()
