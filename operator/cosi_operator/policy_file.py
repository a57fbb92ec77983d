"""Determines the policy of a driver from the flags, a policy file and the defaults. Pure.

The policy has two parts: which status codes are retried (`resolve_policy`), and which calls run one
at a time (`resolve_lane_scope`).

The file is YAML or JSON. All fields are optional:

    profile: csi-like
    serializeAccessCalls: bucket
    overrides:
      - DriverGrantBucketAccess:UNKNOWN=requeue
      - ceph.objectstorage.k8s.io/*:INTERNAL=terminal
    drivers:
      ceph.objectstorage.k8s.io:
        profile: conservative
        overrides: [INTERNAL=terminal]

The sources in order of precedence: the flags, the section of this driver under `drivers`, the rest
of the file, the defaults. The profile and serializeAccessCalls each come from the first source that
sets them. Overrides of all sources are combined. If several match a call and code, the one from the
source with the highest precedence applies. Within a source, an override that names the driver takes
precedence over one that names none, and a later one over an earlier one.

Every word of a file is checked, including the sections of other drivers. So a mistake is reported
at the start of any sidecar, not only when that driver is installed.
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
    """A profile ("" if absent), overrides in the file's order, and a scope (None if absent)."""

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
    """Return the policy of one driver.

    Args:
        driver: the name of the driver, in any case; "" matches no override that names a driver.
        profile: the value of the flag; None or "" if it was not given.
        overrides: the values of the flag, in order.
        file_text: the text of the file; None if there is no file.
        file_name: the name of the file in error messages.
    Raises:
        PolicyError: the text names the setting, or the file with line and field, the invalid word
            and the allowed words.
    """
    file = PolicyFile() if file_text is None else parse_policy_file(file_text, file_name)
    own = file.drivers.get(driver.lower(), Section())
    given = tuple(_given(text) for text in overrides)
    chosen = profile or own.profile or file.everyone.profile or DEFAULT_PROFILE
    # `policy_for` sorts only within one source, because an override of the flag without a driver
    # takes precedence over an override of the file with a driver.
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
    """Return which Grant and Revoke calls of one driver run one at a time.

    Args:
        given: the value of the flag; None if it was not given. The other arguments are those of
            `resolve_policy`.
    Raises:
        PolicyError: as in `resolve_policy`.
    """
    file = PolicyFile() if file_text is None else parse_policy_file(file_text, file_name)
    own = file.drivers.get(driver.lower(), Section())
    return given or own.lane_scope or file.everyone.lane_scope or DEFAULT_LANE_SCOPE


def parse_lane_scope(text: str) -> LaneScope:
    """Return the scope with this name, in any case.

    Raises:
        PolicyError: no scope has this name; the message lists the scopes.
    """
    try:
        return LaneScope(text.strip().lower())
    except ValueError:
        raise PolicyError(unknown_word("scope", text, list(LaneScope))) from None


def parse_policy_file(text: str, name: str) -> PolicyFile:
    """Parse and check a whole file. An empty file has no effect.

    Raises:
        PolicyError: as in `resolve_policy`.
    """
    import yaml  # imported here, because it takes 6 MiB, which most sidecars do not need

    # Tabs are valid in JSON but not in YAML. Within braces, a space has the same meaning.
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")
    try:
        # Compose nodes instead of loading values, because a node has its line, duplicate keys are
        # visible, and every word is a string. YAML would load `no` and `on` as booleans.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; put words that start with * in quotes" if "*" in text else ""
        raise PolicyError(f"{where}: not valid YAML or JSON: {problem}{hint}") from None
    except RecursionError:
        raise PolicyError(f"{name}: brackets are nested too deeply") from None
    if root is None:
        return PolicyFile()
    fields = _mapping(_At(name, root), "profile", "overrides", LANE_SCOPE, "drivers")
    drivers = _mapping(fields["drivers"]) if "drivers" in fields else {}
    sections: dict[str, Section] = {}
    for driver, at in drivers.items():
        if driver.lower() in sections:
            raise at.error(f"driver {driver!r} occurs twice; case is ignored")
        sections[driver.lower()] = _driver_section(driver, at)
    return PolicyFile(_section(fields), sections)


@dataclass(frozen=True, slots=True)
class _At:
    """One node of the file and its path, for example `drivers.ceph.overrides[1]`."""

    file: str
    node: Any  # a yaml.Node, whose type stubs lack `id`
    path: str = ""

    def error(self, problem: str) -> PolicyError:
        line = self.node.start_mark.line + 1
        path = "".join(c if c.isprintable() else "?" for c in self.path)  # names from the file
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
            raise at.error(f"an override in this section names another driver, {override.driver!r}")
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
    """Whether a key has no value, which templates often produce, or the value `null`."""
    return str(at.node.tag) == "tag:yaml.org,2002:null"


def _mapping(at: _At, *allowed: str) -> Mapping[str, _At]:
    """Return the fields of a mapping. If `allowed` is empty, any name is allowed."""
    if _is_empty(at):
        return {}
    if at.node.id != "mapping":
        raise at.error(f"expected fields (name: value), found a {at.node.id}")
    fields: dict[str, _At] = {}
    for key, value in at.node.value:
        here = _At(at.file, key, at.path)
        name = _word(here)
        if allowed and name not in allowed:
            raise here.error(unknown_word("field", name, allowed))
        if name in fields:
            raise here.error(f"the field {name!r} occurs twice")
        fields[name] = _At(at.file, value, f"{at.path}.{name}" if at.path else name)
    return fields


def _items(at: _At) -> Sequence[_At]:
    if _is_empty(at):
        return ()
    if at.node.id != "sequence":
        raise at.error(f"expected a list ('- ...'), found a {at.node.id}")
    return [_At(at.file, node, f"{at.path}[{i}]") for i, node in enumerate(at.node.value)]


def _word(at: _At) -> str:
    if at.node.id != "scalar":
        raise at.error(f"expected one word, found a {at.node.id}")
    word: str = at.node.value
    return word
