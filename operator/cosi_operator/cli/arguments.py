"""The command line of `cosi`: words to one frozen record, or a usage error (exit code 2)."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from cosi_operator.api.view import AuthenticationType
from cosi_operator.classify import CONSERVATIVE, PROFILES
from cosi_operator.cli.driver_check.seen import Options
from cosi_operator.cli.policy import CALLS
from cosi_operator.driver.channel import DriverChannel
from cosi_operator.outcome import Call, Code

EPILOG = """\
exit codes: 0 all is well, 1 something is not ready, 2 wrong usage or it could not be done
As a kubectl plugin: kubectl cosi status
"""
CHECK_EPILOG = """\
It says first what it will create, asks (unless --yes), and removes all of it again.
exit codes: 0 no check failed, 1 one did, 2 wrong usage, no consent, or no driver there
"""
# Kinds as kubectl takes them, mapped to the one name that the commands know.
KINDS = {
    **dict.fromkeys(("bucketclaim", "bucketclaims"), "bucketclaim"),
    **dict.fromkeys(("bucketaccess", "bucketaccesses"), "bucketaccess"),
    **dict.fromkeys(("bucket", "buckets"), "bucket"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What NAME on the command line means: `bucketclaim`, `bucketaccess` or `bucket`."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One parsed command line. Only what its command takes is set."""

    name: str
    output: str = "text"
    kubeconfig: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False
    target: Target | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    file: str | None = None
    driver: str = ""
    call: Call | None = None
    code: Code | None = None
    check: Options | None = None

    @property
    def json(self) -> bool:
        return self.output == "json"


def parse(argv: Sequence[str], prog: str) -> Command:
    """Parse; prints help or a usage error and raises SystemExit, as argparse does."""
    found = _parser(prog).parse_args(argv)
    words = vars(found)
    return Command(
        name=found.command,
        output=words.get("output", "text"),
        kubeconfig=words.get("kubeconfig"),
        namespace=words.get("namespace"),
        all_namespaces=words.get("all_namespaces", False),
        target=words.get("target"),
        profile=words.get("profile"),
        overrides=tuple(words.get("override") or ()),
        file=words.get("file"),
        driver=words.get("driver", ""),
        call=words.get("call"),
        code=words.get("code"),
        check=_check_options(found) if found.command == "driver check" else None,
    )


def _check_options(found: argparse.Namespace) -> Options:
    return Options(
        address=found.driver_addr,
        parameters=dict(found.parameter or ()),
        access_parameters=dict(found.access_parameter or ()),
        authentication=AuthenticationType(found.authentication_type),
        timeout_s=found.timeout,
        include_dangerous=found.include_dangerous,
        s3=found.s3,
        yes=found.yes,
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="What COSI is doing with buckets and accesses, and why it stopped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_cluster_commands(commands)
    _add_policy_commands(commands)
    _add_driver_commands(commands)
    return parser


type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _add(commands: _Commands, word: str, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        word,
        help=text[0].lower() + text[1:].partition(".")[0],
        description=text,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=name)
    return parser


def _add_cluster_commands(commands: _Commands) -> None:
    status = _add(commands, "status", "status", "List what isn't ready.")
    _namespace(status)
    status.add_argument(
        "-A", "--all-namespaces", action="store_true", help="every namespace, and Buckets"
    )
    why = _add(
        commands,
        "why",
        "why",
        "Show the chain from a claim to its Secret, and what holds it up.",
    )
    _target(why, "bucketclaim", "bucketaccess")
    retry = _add(commands, "retry", "retry", "Have a failed object tried again at once.")
    _target(retry, *KINDS.values())
    rotate = _add(commands, "rotate", "rotate", "Renew the keys of a BucketAccess.")
    _target(rotate, "bucketaccess")
    drivers = _add(commands, "drivers", "drivers", "List drivers, their classes and their Buckets.")
    rollback = _add(
        commands,
        "rollback-check",
        "rollback-check",
        "List what the Go pair v0.2.2 would mishandle after a rollback. Needs an administrator.",
    )
    for parser in (status, why, retry, rotate, drivers, rollback):
        parser.add_argument("--kubeconfig", metavar="PATH", help="instead of the usual one")
    for parser in (status, why, drivers, rollback):
        _output(parser)


def _add_policy_commands(commands: _Commands) -> None:
    group = commands.add_parser(
        "policy", help="show or explain the retry policy", description="The retry policy."
    ).add_subparsers(metavar="COMMAND", required=True)
    show = _add(group, "show", "policy show", "Show the table in force.")
    explain = _add(group, "explain", "policy explain", "Say what one status leads to, and why.")
    explain.add_argument("--call", required=True, type=_call, help=", ".join(CALLS))
    explain.add_argument(
        "--code", required=True, type=_code, help="a gRPC code, for instance INTERNAL"
    )
    for parser in (show, explain):
        parser.add_argument("--profile", metavar="P", help=", ".join(PROFILES))
        parser.add_argument(
            "--override", metavar="O", action="append", help="[driver/][Call:]CODE=verdict; repeat"
        )
        parser.add_argument("--file", metavar="F", help="a policy file, YAML or JSON")
        parser.add_argument("--driver", default="", metavar="D", help="the driver's name")
        _output(parser)


def _add_driver_commands(commands: _Commands) -> None:
    group = commands.add_parser(
        "driver", help="check a driver", description="For those who write or choose a driver."
    ).add_subparsers(metavar="COMMAND", required=True)
    check = _add(group, "check", "driver check", "Check a running driver, call by call.")
    check.epilog = CHECK_EPILOG
    defaults = Options()
    check.add_argument(
        "--driver-addr", metavar="A", type=_address, default=defaults.address,
        help="the driver's socket (%(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--parameter", metavar="K=V", type=_pair, action="append",
        help="a parameter of the BucketClass that the driver needs; repeat",
    )  # fmt: skip
    check.add_argument(
        "--access-parameter", metavar="K=V", type=_pair, action="append",
        help="a parameter of the BucketAccessClass; repeat",
    )  # fmt: skip
    check.add_argument(
        "--authentication-type", choices=("Key", "IAM"), default="Key", help="(%(default)s)"
    )
    check.add_argument(
        "--timeout", metavar="S", type=_seconds, default=defaults.timeout_s,
        help="seconds for one call (%(default)g)",
    )  # fmt: skip
    check.add_argument(
        "--include-dangerous", action="store_true",
        help="send empty ids too; on a driver with a fault that may remove EVERY bucket it has",
    )  # fmt: skip
    check.add_argument(
        "--s3", action="store_true",
        help="use the keys on S3: each has to work, and to be refused after its revocation"
        " (needs: pip install 'cosi-operator[check]')",
    )  # fmt: skip
    check.add_argument("--yes", action="store_true", help="do not ask before anything is created")
    _output(check, "junit")


def _namespace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--namespace", help="instead of the context's")


def _target(parser: argparse.ArgumentParser, *kinds: str) -> None:
    _namespace(parser)
    allowed = tuple(dict.fromkeys(kinds))

    usual = allowed[0]

    def target(text: str) -> Target:
        word, slash, name = text.rpartition("/")
        kind = KINDS.get(word.lower()) if slash else usual
        if not name or kind not in allowed:
            raise argparse.ArgumentTypeError(
                f"{text!r}: write NAME for a {usual}, or KIND/NAME with one of {', '.join(allowed)}"
            )
        return Target(kind, name)

    parser.add_argument(
        "target",
        metavar="NAME",
        type=target,
        help=f"a {usual}, or KIND/NAME ({', '.join(allowed)})",
    )


def _output(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json", *more), default="text")


def _address(text: str) -> str:
    try:
        DriverChannel(text)  # connects to nothing
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; for instance unix:///run/cosi.sock") from None
    return text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    return key, value


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: write seconds, above 0")
    return seconds


def _call(text: str) -> Call:
    for call in CALLS:
        if text.lower() == call.lower():
            return call
    raise argparse.ArgumentTypeError(f"{text!r} is no call; allowed: {', '.join(CALLS)}")


def _code(text: str) -> Code:
    for code in CONSERVATIVE:
        if text.lower().replace("-", "_") == code.name.lower():
            return code
    names = ", ".join(code.name for code in CONSERVATIVE)
    raise argparse.ArgumentTypeError(f"{text!r} is no code of a failure; allowed: {names}")
