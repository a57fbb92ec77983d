"""What a check will do to the backend, for people to read before they agree. Pure."""

from cosi_operator.cli.driver_check.keys import OBJECT
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.driver_check.seen import AT_ONCE

BUCKETS, ACCOUNTS = 5, 5 + AT_ONCE


def announcement(options: Options, prefix: str) -> str:
    """What a run will do to the backend, for people to read beforehand."""
    more = ""
    if options.include_dangerous:
        more = (
            "\nWITH --include-dangerous IT ALSO SENDS EMPTY IDS TO DriverDeleteBucket AND"
            " DriverRevokeBucketAccess.\nA driver with a fault may then remove EVERY bucket it has."
            "\nIt also asks for a bucket and an account without a name; what a driver makes then"
            " stays."
        )
    if options.s3:
        more += (
            "\nWith --s3 it uses the keys: it lists these buckets, or writes and removes an object"
            f" {OBJECT} in them."
        )
    return (
        f"This asks the driver at {options.address} to create up to {BUCKETS} buckets and"
        f" {ACCOUNTS} accounts.\nAll are named {prefix}-..., none holds data, and all are removed"
        f" again. Nothing else is touched.{more}\n"
    )
