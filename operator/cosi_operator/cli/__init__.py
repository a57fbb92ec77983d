"""`cosi` and `kubectl cosi`: what people ask about buckets, and what they can do.

Every command uses the rights of whoever runs it, says what it could not see, and goes on. Reading,
deciding and printing are apart: `read` asks the API server, `diagnosis`, `policy` and `render` are
pure, `commands` joins them, and this module alone touches the terminal.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from cosi_operator.classify import PolicyError
from cosi_operator.cli.arguments import Command, parse
from cosi_operator.cli.commands import (
    CLUSTER_COMMANDS,
    EXIT_FAILED,
    CommandError,
    Printed,
    run_policy,
)
from cosi_operator.cli.driver_check.announce import announcement
from cosi_operator.cli.driver_check.command import check_driver, new_prefix
from cosi_operator.cli.driver_check.seen import Options
from cosi_operator.cli.read import NotInstalledError, Reader
from cosi_operator.cli.text import clean
from cosi_operator.clock import Clock, RealClock
from cosi_operator.kube.client import KubeClient
from cosi_operator.kube.errors import ApiError, ApiSilent, Forbidden
from cosi_operator.kube.kubeconfig import KubeconfigError
from cosi_operator.logs import configure
from cosi_operator.settings import LogFormat, LogLevel

EXIT_INTERRUPTED = 130

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code: 0 ready, 1 something is not, 2 could not be done."""
    is_plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    configure(level=LogLevel.ERROR, log_format=LogFormat.AUTO, stream=sys.stderr)
    try:
        command = parse(
            sys.argv[1:] if argv is None else argv, "kubectl cosi" if is_plugin else "cosi"
        )
        printed = _run(command)
        sys.stdout.write(printed.out)
        sys.stdout.flush()
        sys.stderr.write(printed.note)
    except SystemExit as done:  # argparse has printed help or what is wrong
        return done.code if isinstance(done.code, int) else EXIT_FAILED
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    else:
        return printed.code


def _run(command: Command) -> Printed:
    try:
        if command.check is not None:
            prefix = new_prefix()
            _agree(command.check, announcement(command.check, prefix))
            return anyio.run(check_driver, command, prefix, RealClock())
        if command.name not in CLUSTER_COMMANDS:
            return run_policy(command)
        return anyio.run(_ask, command)
    except Forbidden as error:
        words = f"you have no right to do this: {error.message}"
    except (CommandError, PolicyError, KubeconfigError, NotInstalledError) as error:
        words = str(error)
    except ApiSilent as error:
        words = f"no answer from the API server: {error}"
    except ApiError as error:
        words = f"the API server refused: {error}"
    return Printed("", EXIT_FAILED, f"error: {clean(words)}\n")


def _agree(options: Options, what: str) -> None:
    """Print the planned changes, and continue only after confirmation."""
    sys.stderr.write(what)
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            "not a terminal, so confirmation is impossible. Nothing was created. Pass --yes to"
            " proceed."
        )
    sys.stderr.write("Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was created")


async def _ask(command: Command) -> Printed:
    clock = RealClock()
    client = await KubeClient.connect(command.kubeconfig, clock=clock, user_agent="cosi")
    async with client:
        return await run(command, client, clock)


async def run(command: Command, client: KubeClient, clock: Clock) -> Printed:
    """Run one command against a cluster.

    Raises:
        CommandError, NotInstalledError: it could not be done; the text is for the user.
        ApiError, ApiSilent: the server refused, or did not answer.
    """
    return await CLUSTER_COMMANDS[command.name](command, Reader(client), clock)
