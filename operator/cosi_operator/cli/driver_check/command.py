"""Joins the parts of `cosi driver check`; asks no questions and prints nothing itself."""

import secrets

from cosi_operator.cli.arguments import Command
from cosi_operator.cli.driver_check import show
from cosi_operator.cli.driver_check.advice import advise
from cosi_operator.cli.driver_check.ask import examine
from cosi_operator.cli.driver_check.finding import Result, words_of
from cosi_operator.cli.driver_check.judge import judge
from cosi_operator.cli.driver_check.keys import S3Keys, can_try_keys
from cosi_operator.cli.driver_check.seen import Step
from cosi_operator.cli.printed import EXIT_NOT_READY, EXIT_OK, CommandError, Printed
from cosi_operator.clock import Clock
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.driver.probe import Probe

_SHOWN = {"table": show.text, "json": show.json, "junit": show.junit}


def new_prefix() -> str:
    """What all names of one run begin with; nobody else has it."""
    return f"cosi-check-{secrets.token_hex(4)}"


async def check_driver(command: Command, prefix: str, clock: Clock) -> Printed:
    """Run the check that was announced.

    Raises:
        CommandError: no driver answers there, or a part that the command needs is missing.
    """
    options = command.check
    assert options is not None
    if options.s3 and not can_try_keys():
        raise CommandError("--s3 needs an S3 library: pip install 'cosi-operator[check]'")
    channel = DriverChannel(options.address)
    try:
        keys = S3Keys(clock) if options.s3 else None
        seen = await examine(Probe(channel), clock, options, prefix, keys)
    finally:
        channel.close()
    info = seen.asked[Step.INFO]
    if info.refused is None and not info.ok:
        raise CommandError(f"no driver answers at {options.address}: {words_of(info)}")
    findings = judge(seen)
    failed = any(finding.result is Result.FAIL for finding in findings)
    shown = _SHOWN[command.output](seen, findings, advise(seen))
    return Printed(shown, EXIT_NOT_READY if failed else EXIT_OK)
