"""`cosi policy show` and `explain`: what a policy file and its overrides lead to, offline."""

from pathlib import Path
from typing import Any

import msgspec

from cosi_operator.cli import policy as table_of_policy
from cosi_operator.cli.arguments import Command
from cosi_operator.cli.printed import CommandError, Printed
from cosi_operator.cli.tree import to_text
from cosi_operator.policy_file import resolve_lane_scope, resolve_policy


def run_policy(command: Command) -> Printed:
    """Run one of the two commands; no cluster is asked.

    Raises:
        PolicyError: as of `resolve_policy`. CommandError: the file can't be read.
    """
    text = _read(command.file) if command.file else None
    policy = resolve_policy(
        command.driver,
        profile=command.profile,
        overrides=command.overrides,
        file_text=text,
        file_name=command.file or "",
    )
    lane_scope = resolve_lane_scope(command.driver, file_text=text, file_name=command.file or "")
    if command.call is not None and command.code is not None:
        ruled = table_of_policy.policy_decision(policy, command.call, command.code)
        if command.is_tree:
            return Printed(to_text(_spelled(ruled), command.output))
        return Printed(table_of_policy.explain(ruled))
    if command.is_tree:
        tree = {
            "driver": command.driver,
            "profile": policy.profile,
            "serializeAccessCalls": lane_scope,
            "overrides": [o.spelled() for o in policy.overrides],
            "verdicts": [_spelled(r) for r in table_of_policy.policy_decisions(policy)],
        }
        return Printed(to_text(tree, command.output))
    return Printed(table_of_policy.show(policy, command.driver, lane_scope))


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        searched = Path(name).absolute()
        raise CommandError(
            f"--file {name}: {searched} does not exist, and no other place is searched. The file"
            " that a sidecar uses is what its flag --retry-policy-file or its variable"
            " COSI_RETRY_POLICY_FILE names"
        ) from None
    except IsADirectoryError:
        raise CommandError(f"--file {name}: it is a directory; name the file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name}: {error}") from None


def _spelled(ruled: table_of_policy.PolicyDecision) -> dict[str, Any]:
    """With the code's name instead of its number."""
    fields: dict[str, Any] = msgspec.to_builtins(ruled)
    return {**fields, "code": ruled.code.name}
