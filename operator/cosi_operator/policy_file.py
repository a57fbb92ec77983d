"""The policy of a driver from its three sources: flags, a policy file, the defaults. Pure.

The policy has two parts: which status codes are retried (`resolve_policy`), and which calls run one
at a time (`resolve_lane_scope`).

The file is YAML or JSON. All of it is optional:

    profile: csi-like
    serializeAccessCalls: bucket
    overrides:
      - DriverGrantBucketAccess:UNKNOWN=requeue
      - ceph.objectstorage.k8s.io/*:INTERNAL=terminal
    drivers:
      ceph.objectstorage.k8s.io:
        profile: conservative
        overrides: [INTERNAL=terminal]

Precedence, first what wins: the flags; in the file what stands under `drivers` for this driver;
the rest of the file; the defaults. The profile comes from the first of these that names one.
The same holds for serializeAccessCalls. Overrides add up, and for one call and code the one of the
highest source counts. Within a source
an override that names the driver beats one that names none, then the last one beats the earlier.

Every word of a file is checked, also of other drivers: a typing error shows at start, not when
that driver is installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cosi_operator.classify import (
    Override,
    Policy,
    PolicyError,
    parse_override,
    policy_for,
    unknown_word,
)
from cosi_operator.settings import LaneScope

DEFAULT_PROFILE = "conservative"
DEFAULT_LANE_SCOPE = LaneScope.DRIVER
LANE_SCOPE = "serializeAccessCalls"


@dataclass(frozen=True, slots=True)
class Section:
    """A profile, "" if none is named, overrides in the order of the file, and a scope, if any."""

    profile: str = ""
    overrides: tuple[Override, ...] = ()
    lane_scope: LaneScope | None = None


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A checked file; the keys of `drivers` are lower-case driver names."""

    everyone: Section = Section()
    drivers: Mapping[str, Section] = field(default_factory=dict)


def resolve_policy(
    driver: str,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    file_text: str | None = None,
    file_name: str = "policy file",
) -> Policy:
    """The policy in force for one driver.

    Args:
        driver: its name, compared without regard to case; "" fits no override that names one.
        profile: of the flag; None or "" when it was not given.
        overrides: of the flag, in their order.
        file_text: the file's text; None when there is none.
        file_name: how errors name the file.
    Raises:
        PolicyError: names the setting, or the file with line and field, the bad word and the
            allowed ones.
    """
    file = PolicyFile() if file_text is None else parse_policy_file(file_text, file_name)
    own = file.drivers.get(driver.lower(), Section())
    given = tuple(_given(text) for text in overrides)
    chosen = profile or own.profile or file.everyone.profile or DEFAULT_PROFILE
    # `policy_for` sorts within one source; a flag without a driver still beats a file with one.
    layers = [
        policy_for(driver, chosen, source)
        for source in (file.everyone.overrides, own.overrides, given)
    ]
    return Policy(chosen, tuple(override for layer in layers for override in layer.overrides))


def resolve_lane_scope(
    driver: str,
    *,
    given: LaneScope | None = None,
    file_text: str | None = None,
    file_name: str = "policy file",
) -> LaneScope:
    """Which Grant and Revoke calls of one driver run one at a time.

    Args:
        given: by the flag; None when it was not given.
    Raises:
        PolicyError: as `resolve_policy`; the other arguments are as there, too.
    """
    file = PolicyFile() if file_text is None else parse_policy_file(file_text, file_name)
    own = file.drivers.get(driver.lower(), Section())
    return given or own.lane_scope or file.everyone.lane_scope or DEFAULT_LANE_SCOPE


def parse_lane_scope(text: str) -> LaneScope:
    """The scope that a word names, in any case.

    Raises:
        PolicyError: no scope has this name; the message lists them.
    """
    try:
        return LaneScope(text.strip().lower())
    except ValueError:
        raise PolicyError(unknown_word("scope", text, list(LaneScope))) from None


def parse_policy_file(text: str, name: str) -> PolicyFile:
    """Read and check a whole file; an empty one changes nothing.

    Raises:
        PolicyError: as in `resolve_policy`.
    """
    import yaml  # late: 6 MiB that a sidecar without a policy file never pays

    # JSON may be indented by tabs, YAML may not; within braces they mean the same as blanks.
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")
    try:
        # Nodes, not values: each keeps its line, a key given twice shows, and every word stays a
        # string, where YAML would read `no` and `on` as booleans.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; put words that begin with * in quotes" if "*" in text else ""
        raise PolicyError(f"{where}: not readable as YAML or JSON: {problem}{hint}") from None
    except RecursionError:
        raise PolicyError(f"{name}: not readable: brackets are nested without end") from None
    if root is None:
        return PolicyFile()
    fields = _mapping(_At(name, root), "profile", "overrides", LANE_SCOPE, "drivers")
    drivers = _mapping(fields["drivers"]) if "drivers" in fields else {}
    sections: dict[str, Section] = {}
    for driver, at in drivers.items():
        if driver.lower() in sections:
            raise at.error(f"driver {driver!r} stands here twice; case makes no difference")
        sections[driver.lower()] = _driver_section(driver, at)
    return PolicyFile(_section(fields), sections)


@dataclass(frozen=True, slots=True)
class _At:
    """One node of the file and the way to it, for instance `drivers.ceph.overrides[1]`."""

    file: str
    node: Any  # a yaml.Node; its type stubs do not know `id`
    path: str = ""

    def error(self, problem: str) -> PolicyError:
        line = self.node.start_mark.line + 1
        path = "".join(c if c.isprintable() else "?" for c in self.path)  # names of the file's own
        return PolicyError(f"{self.file}:{line}: {f'{path}: ' if path else ''}{problem}")


def _given(text: str) -> Override:
    try:
        return parse_override(text)
    except PolicyError as error:
        raise PolicyError(f"retry override {text!r}: {error}") from None


def _driver_section(driver: str, at: _At) -> Section:
    section = _section(_mapping(at, "profile", "overrides", LANE_SCOPE))
    for override in section.overrides:
        if override.driver and override.driver.lower() != driver.lower():
            raise at.error(f"an override in here names another driver, {override.driver!r}")
    return section


def _section(fields: Mapping[str, _At]) -> Section:
    profile = ""
    if "profile" in fields and not _is_empty(fields["profile"]):
        profile = _word(fields["profile"])
        try:
            policy_for("", profile)
        except PolicyError as error:
            raise fields["profile"].error(str(error)) from None
    overrides = []
    for at in _items(fields["overrides"]) if "overrides" in fields else ():
        try:
            overrides.append(parse_override(_word(at)))
        except PolicyError as error:
            raise at.error(str(error)) from None
    return Section(profile, tuple(overrides), _lane_scope(fields.get(LANE_SCOPE)))


def _lane_scope(at: _At | None) -> LaneScope | None:
    if at is None or _is_empty(at):
        return None
    try:
        return parse_lane_scope(_word(at))
    except PolicyError as error:
        raise at.error(str(error)) from None


def _is_empty(at: _At) -> bool:
    """True for a key with nothing after it, as templates leave behind, and for `null`."""
    return str(at.node.tag) == "tag:yaml.org,2002:null"


def _mapping(at: _At, *allowed: str) -> Mapping[str, _At]:
    """The fields of a mapping; any name goes when none is listed in `allowed`."""
    if _is_empty(at):
        return {}
    if at.node.id != "mapping":
        raise at.error(f"a {at.node.id} stands here; write fields (name: value)")
    fields: dict[str, _At] = {}
    for key, value in at.node.value:
        here = _At(at.file, key, at.path)
        name = _word(here)
        if allowed and name not in allowed:
            raise here.error(unknown_word("field", name, allowed))
        if name in fields:
            raise here.error(f"the field {name!r} stands here twice")
        fields[name] = _At(at.file, value, f"{at.path}.{name}" if at.path else name)
    return fields


def _items(at: _At) -> Sequence[_At]:
    if _is_empty(at):
        return ()
    if at.node.id != "sequence":
        raise at.error(f"a {at.node.id} stands here; write a list, also of one ('- ...')")
    return [_At(at.file, node, f"{at.path}[{i}]") for i, node in enumerate(at.node.value)]


def _word(at: _At) -> str:
    if at.node.id != "scalar":
        raise at.error(f"a {at.node.id} stands here; write one word")
    word: str = at.node.value
    return word
