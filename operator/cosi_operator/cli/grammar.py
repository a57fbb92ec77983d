"""The commands and options of `cosi`, and their help with examples."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from cosi_operator.classify import PROFILES
from cosi_operator.cli import words
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.scrub import escaped

OUTPUTS = ("table", "wide", "json", "yaml", "name")
SHELLS = ("bash", "zsh", "fish")
EXIT_CODES = (
    "0 everything that could be read is ready, 1 something is not ready or not readable,"
    " 2 wrong usage or an error"
)
DRIVERS_EXIT_CODES = (
    "0 every sidecar is up or not visible, 1 a sidecar is down or absent, or something is not"
    " readable, 2 wrong usage or an error"
)
ROLLBACK_EXIT_CODES = (
    "0 nothing would be mishandled, 1 something would be or could not be read,"
    " 2 wrong usage or an error"
)
SHOWN_EXIT_CODES = "0 done, 2 wrong usage or an error"
DONE_EXIT_CODES = "0 done, or nothing to do, 2 wrong usage or an error"
CHECK_EXIT_CODES = (
    "0 no check failed, 1 a check failed, 2 wrong usage, no consent, or no driver answers"
)


@dataclass(frozen=True, slots=True)
class Help:
    """What `--help` of one command shows. `examples`: pairs of a sentence and a command."""

    text: str
    examples: Sequence[tuple[str, str]] = ()
    exit_codes: str = EXIT_CODES


HELP = {
    "status": Help(
        "List the claims and accesses that are not ready.",
        [
            ("Of the current namespace", "status"),
            ("Of all namespaces, with the complete messages", "status -A -o wide"),
            ("Print the list again whenever it changes", "status -n shop --watch"),
        ],
    ),
    "why": Help(
        "Show the chain from a claim to its Secret, what holds it up, and who can act.",
        [
            ("Of a BucketClaim", "why photos -n shop"),
            ("Of a BucketAccess", "why ba/photos-keys -n shop"),
            ("Print it again on each change until it is ready", "why photos --watch"),
        ],
    ),
    "retry": Help(
        "Retry a failed object now.",
        [
            ("A BucketClaim", "retry photos -n shop"),
            ("A BucketAccess, for instance after its Secret was deleted", "retry ba/photos-keys"),
        ],
        DONE_EXIT_CODES,
    ),
    "rotate": Help(
        "Renew the keys of a BucketAccess.",
        [("The old keys may stop working at once", "rotate photos-keys -n shop")],
        DONE_EXIT_CODES,
    ),
    "drivers": Help(
        "List drivers: whether their sidecar is up, since when, its version and policy, and what"
        " they serve.",
        [
            ("With the names of the classes", "drivers -o wide"),
            ("Names only", "drivers -o name"),
        ],
        DRIVERS_EXIT_CODES,
    ),
    "rollback-check": Help(
        "List what the Go pair v0.2.2 would mishandle after a rollback. Needs an administrator.",
        [("As JSON, for a script", "rollback-check -o json")],
        ROLLBACK_EXIT_CODES,
    ),
    "policy show": Help(
        "Show the retry policy: what each code of each call leads to.",
        [
            ("Of the default profile", "policy show"),
            ("Of a policy file, for one driver", "policy show --file p.yaml --driver d.example"),
        ],
        SHOWN_EXIT_CODES,
    ),
    "policy explain": Help(
        "Explain what one code of one call leads to.",
        [
            (
                "A driver answers UNAVAILABLE",
                "policy explain --call DriverCreateBucket --code UNAVAILABLE",
            )
        ],
        SHOWN_EXIT_CODES,
    ),
    "driver check": Help(
        "Check a running driver, call by call. The command prints what it will create, asks for"
        " confirmation (unless --yes), and removes all of it at the end.",
        [
            ("A driver behind a socket", "driver check --driver-addr unix:///run/cosi.sock"),
            ("Also try the keys on S3, as JUnit XML", "driver check --s3 --yes -o junit"),
        ],
        CHECK_EXIT_CODES,
    ),
    "completion": Help(
        "Print the completion script for a shell.",
        [
            ("bash, now", "completion bash > /etc/bash_completion.d/cosi"),
            ("zsh, in a folder of $fpath", "completion zsh > ~/.zfunc/_cosi"),
            ("fish", "completion fish > ~/.config/fish/completions/cosi.fish"),
        ],
        "0 done, 2 wrong usage",
    ),
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Its errors quote words of the command line, without what a terminal would obey."""

    def error(self, message: str) -> NoReturn:
        super().error(escaped(message))


type Commands = argparse._SubParsersAction[_Parser]


def build(prog: str) -> argparse.ArgumentParser:
    """The parser of the whole command line. Cluster options go before or after the command."""
    parser = _Parser(
        prog=prog,
        description="What COSI is doing with buckets and accesses, and why it stopped.",
        epilog=_epilog(Help("", [("What is not ready", "status -A"), ("Why", "why photos")]), prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    _cluster_options(parser, default=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_cluster_commands(commands, prog)
    _add_policy_commands(commands, prog)
    _add_driver_commands(commands, prog)
    completion = _add(commands, "completion", "completion", prog)
    completion.add_argument("shell", choices=SHELLS)
    return parser


class _Version(argparse.Action):
    """Prints the version of the installed package, which is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"cosi {version()}")  # noqa: T201 - as argparse's own action does
        parser.exit()


def version() -> str:
    """The version of the installed package."""
    from importlib import metadata

    try:
        return metadata.version("cosi-operator")
    except metadata.PackageNotFoundError:
        return "unknown, because the package is not installed"


def _cluster_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--kubeconfig", metavar="PATH", default=default,
        help="instead of KUBECONFIG and ~/.kube/config; several are joined as kubectl does it",
    )  # fmt: skip
    parser.add_argument(
        "--context", metavar="NAME", default=default, help="instead of the current context"
    )
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", default=default, type=words.namespace,
        help="instead of the context's",
    )  # fmt: skip


def _add(commands: Commands, word: str, name: str, prog: str) -> argparse.ArgumentParser:
    text = HELP[name].text
    parser = commands.add_parser(
        word,
        help=text[0].lower() + text[1:].partition(". ")[0].rstrip("."),
        description="\n".join(textwrap.wrap(text, 80)),
        epilog=_epilog(HELP[name], prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=name)
    return parser


def _epilog(shown: Help, prog: str) -> str:
    lines = ["examples:"]
    for sentence, command in shown.examples:
        lines += [f"  # {sentence}", f"  {prog} {command}"]
    return "\n".join([*lines, "", f"exit codes: {shown.exit_codes}"])


def _add_cluster_commands(commands: Commands, prog: str) -> None:
    status = _add(commands, "status", "status", prog)
    status.add_argument(
        "-A",
        "--all-namespaces",
        action="store_true",
        help="every namespace, and Buckets without a claim",
    )
    why = _add(commands, "why", "why", prog)
    _target(why, "bucketclaim", "bucketaccess")
    retry = _add(commands, "retry", "retry", prog)
    _target(retry, "bucketclaim", "bucketaccess", "bucket")
    rotate = _add(commands, "rotate", "rotate", prog)
    _target(rotate, "bucketaccess")
    drivers = _add(commands, "drivers", "drivers", prog)
    rollback = _add(commands, "rollback-check", "rollback-check", prog)
    for parser in (status, why, retry, rotate, drivers, rollback):
        # A default here would hide what was given before the command.
        _cluster_options(parser, default=argparse.SUPPRESS)
    for parser in (status, why, drivers, rollback):
        _output(parser, *OUTPUTS)
    for parser in (status, why, drivers):
        parser.add_argument(
            "-w", "--watch", action="store_true", help="print again on each change, until Ctrl-C"
        )


def _add_policy_commands(commands: Commands, prog: str) -> None:
    group = commands.add_parser(
        "policy",
        help="show or explain the retry policy",
        description="The retry policy.",
        epilog=_epilog(HELP["policy show"], prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(metavar="COMMAND", required=True)
    show = _add(group, "show", "policy show", prog)
    explain = _add(group, "explain", "policy explain", prog)
    explain.add_argument("--call", required=True, type=words.call, help=", ".join(words.CALLS))
    explain.add_argument(
        "--code", required=True, type=words.code, help="a gRPC code, for instance INTERNAL"
    )
    for parser in (show, explain):
        parser.add_argument("--profile", metavar="P", help=", ".join(PROFILES))
        parser.add_argument(
            "--override", metavar="O", action="append", help="[driver/][Call:]CODE=verdict; repeat"
        )
        parser.add_argument("--file", metavar="F", help="a policy file, YAML or JSON")
        parser.add_argument("--driver", default="", metavar="D", help="the driver's name")
        _output(parser, "table", "json", "yaml")


def _add_driver_commands(commands: Commands, prog: str) -> None:
    group = commands.add_parser(
        "driver",
        help="check a driver",
        description="For those who write or choose a driver.",
        epilog=_epilog(HELP["driver check"], prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(metavar="COMMAND", required=True)
    check = _add(group, "check", "driver check", prog)
    defaults = Options()
    check.add_argument(
        "--driver-addr", metavar="A", type=words.address, default=defaults.address,
        help="the driver's socket (%(default)s)",
    )  # fmt: skip
    check.add_argument(
        "--parameter", metavar="K=V", type=words.pair, action="append",
        help="a parameter of the BucketClass that the driver needs; repeat",
    )  # fmt: skip
    check.add_argument(
        "--access-parameter", metavar="K=V", type=words.pair, action="append",
        help="a parameter of the BucketAccessClass; repeat",
    )  # fmt: skip
    check.add_argument(
        "--authentication-type", choices=("Key", "IAM"), default="Key", help="(%(default)s)"
    )
    check.add_argument(
        "--timeout", metavar="S", type=words.seconds, default=defaults.timeout_s,
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
    _output(check, "table", "json", "junit")


def _target(parser: argparse.ArgumentParser, *kinds: str) -> None:
    short = [word for word in ("bc", "ba") if words.kind_of(word) in kinds]
    parser.add_argument(
        "target",
        metavar="NAME",
        type=words.target_of(*kinds),
        help=f"a {kinds[0]}, or KIND/NAME ({', '.join(kinds)}; short: {', '.join(short)})",
    )


def _output(parser: argparse.ArgumentParser, *formats: str) -> None:
    parser.add_argument(
        "-o", "--output", type=_without_text, choices=formats, default="table",
        help=", ".join(formats),
        metavar="FORMAT",
    )  # fmt: skip


def _without_text(word: str) -> str:
    """`text` is the former name of `table`."""
    return "table" if word == "text" else word
