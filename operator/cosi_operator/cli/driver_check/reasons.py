"""Why a step of a check is not asked, as people read it."""

from cosi_operator.cli.driver_check.seen import Step

MOST_LATE = 3  # calls without an answer; after that the driver counts as hung

NO_BUCKET = "there is no bucket to try it on"
NO_ACCOUNT = "there is no account to try it on"
NOT_OURS = "the driver gave two names one id, so that bucket may not be ours"
COMMON = "the driver gave two names one account, so it may not be ours"
HUNG = f"the driver had left {MOST_LATE} calls without an answer"
DANGEROUS = "may reach what is not ours; ask for it with --include-dangerous"

EMPTY_IDS = (
    Step.NO_NAME,
    Step.GRANT_NO_BUCKET_ID,
    Step.GRANT_NO_NAME,
    Step.REVOKE_NO_BUCKET_ID,
    Step.REVOKE_NO_ACCOUNT_ID,
    Step.DELETE_NO_ID,
)
