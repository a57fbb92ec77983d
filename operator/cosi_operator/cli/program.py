"""One run of `cosi`: parse, ask, print, and turn each failure into one line and an exit code."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosi_operator.classify import PolicyError
from cosi_operator.cli import terminal
from cosi_operator.cli.arguments import Command, parse
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.printed import EXIT_FAILED, EXIT_OK, CommandError, Printed
from cosi_operator.cli.text import clean
from cosi_operator.kube.errors import ApiError, ApiSilent, Forbidden
from cosi_operator.kube.kubeconfig_merge import KubeconfigError
from cosi_operator.sdk.errors import NotInstalledError

NEEDS_CLI = "this command needs kr8s; run: pip install 'cosi-operator[cli]'"


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line, without the program's name; return the exit code."""
    # A caller who wants only the exit code can have closed them.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know ASCII only
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _answer(sys.argv[1:] if argv is None else argv)
        except SystemExit as done:  # argparse has printed help or what is wrong
            _show(Printed(""))  # notices here that nobody reads the help
            return done.code if isinstance(done.code, int) else EXIT_FAILED
    except BrokenPipeError:  # argparse prints the version itself
        _drop_output()
        return EXIT_OK
    except OSError as error:
        _drop_output()
        return _fail(clean(str(error)))
    except Exception as error:  # noqa: BLE001 - exit code 1 would say "not ready"
        return _fail(_unexpected(error))


def _answer(words: Sequence[str]) -> int:
    is_plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    if list(words) == ["help"]:  # as kubectl; no word at all is 2, because 0 means "ready"
        words = ["--help"]
    if words[:1] == ["__complete"]:
        from cosi_operator.cli.completion import complete

        return _show(Printed(complete(words[1:]))).code
    command = parse(
        words,
        "kubectl cosi" if is_plugin else "cosi",
        width=terminal.width_of(sys.stdout),
    )
    return _show(_run(command)).code


def _fail(words: str) -> int:
    with contextlib.suppress(OSError):  # a full disk under standard error too
        terminal.write(f"error: {words}\n", sys.stderr)
    return EXIT_FAILED


def _unexpected(error: Exception) -> str:
    """Where a fault of this program is, without the error's text, which may quote a credential."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "cosi_operator" in frame.filename]
    at = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "an unknown place"
    return f"unexpected {type(error).__name__} in {at}. Please report this as a fault of cosi."


def _drop_output() -> None:
    """Otherwise Python would try again at its end to write what is still in the buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, slots=True)
class _Shown:
    """The exit code is the command's own, also when the reader, `head` say, has seen enough."""

    code: int
    is_read: bool = True


def _show(printed: Printed) -> _Shown:
    is_read = True
    try:
        terminal.write(printed.out, sys.stdout)
    except BrokenPipeError:
        _drop_output()
        is_read = False
    terminal.write(printed.note, sys.stderr)
    return _Shown(printed.code, is_read)


def _run(command: Command) -> Printed:
    try:
        if command.check is not None:
            return _check(command, command.check)
        if command.name == "completion":
            from cosi_operator.cli.completion import script

            return Printed(script(command.shell))
        if command.name.startswith("policy "):
            from cosi_operator.cli.policy_command import run_policy

            return run_policy(command)
        return _ask(command)
    except Forbidden as error:
        words = f"you have no right to do this: {error.message}"
    except (CommandError, PolicyError, KubeconfigError, NotInstalledError) as error:
        words = str(error)
    except ApiSilent as error:
        words = f"no answer from the API server: {error}"
    except ApiError as error:
        words = f"the API server refused: {error}"
    return Printed("", EXIT_FAILED, f"error: {clean(words)}\n")


def _ask(command: Command) -> Printed:
    """Run a command that needs a cluster. Everything that it needs is loaded here."""
    try:
        import anyio

        from cosi_operator.cli import commands
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("kr8s", "httpx"):
            raise
        raise CommandError(NEEDS_CLI) from None
    from cosi_operator.clock import RealClock

    async def ask() -> Printed:
        clock = RealClock()
        async with commands.connect(command, clock) as client:
            if not command.watch:
                return await commands.run(command, client, clock)
            code = EXIT_OK
            watched = commands.watch(
                command, client, clock, lambda: terminal.has_reader(sys.stdout)
            )
            async for printed in watched:
                code = printed.code
                if not _show(printed).is_read:
                    break
            return Printed("", code)

    run: Callable[[Callable[[], Awaitable[Printed]]], Printed] = anyio.run
    return run(ask)


def _check(command: Command, options: Options) -> Printed:
    import anyio

    from cosi_operator.cli.driver_check.announce import announcement
    from cosi_operator.cli.driver_check.command import check_driver, new_prefix
    from cosi_operator.clock import RealClock

    _quiet_logs()
    prefix = new_prefix()
    _agree(options, announcement(options, prefix))
    return anyio.run(check_driver, command, prefix, RealClock())


def _quiet_logs() -> None:
    from cosi_operator.logs import configure
    from cosi_operator.settings import LogFormat, LogLevel

    configure(level=LogLevel.ERROR, log_format=LogFormat.AUTO, stream=sys.stderr)


def _agree(options: Options, what: str) -> None:
    """Print the planned changes, and continue only after confirmation."""
    terminal.write(what, sys.stderr)
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
