"""The command line of `cosi`: words to one frozen record, or a usage error (exit code 2)."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from cosi_operator.api.view import AuthenticationType
from cosi_operator.cli.driver_check.options import Options
from cosi_operator.cli.grammar import build
from cosi_operator.cli.words import Target
from cosi_operator.outcome import Call, Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One parsed command line. Only what its command takes is set.

    `width`: columns of the terminal, or None to print everything.
    """

    name: str
    output: str = "table"
    width: int | None = None
    kubeconfig: str | None = None
    context: str = ""
    namespace: str | None = None
    all_namespaces: bool = False
    watch: bool = False
    target: Target | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    file: str | None = None
    driver: str = ""
    call: Call | None = None
    code: Code | None = None
    check: Options | None = None
    shell: str = ""

    @property
    def is_tree(self) -> bool:
        """Whether the output is for programs: JSON or YAML."""
        return self.output in ("json", "yaml")


def parse(argv: Sequence[str], prog: str, *, width: int | None = None) -> Command:
    """Parse; prints help or a usage error and raises SystemExit, as argparse does."""
    found = build(prog).parse_args(argv)
    words = vars(found)
    return Command(
        name=found.command,
        output=words.get("output", "table"),
        width=width,
        kubeconfig=words.get("kubeconfig"),
        context=words.get("context") or "",
        namespace=words.get("namespace"),
        all_namespaces=words.get("all_namespaces", False),
        watch=words.get("watch", False),
        target=words.get("target"),
        profile=words.get("profile"),
        overrides=tuple(words.get("override") or ()),
        file=words.get("file"),
        driver=words.get("driver", ""),
        call=words.get("call"),
        code=words.get("code"),
        check=_check_options(found) if found.command == "driver check" else None,
        shell=words.get("shell", ""),
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
