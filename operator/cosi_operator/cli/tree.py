"""Records as JSON or YAML, for programs. Pure."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from cosi_operator.scrub import escaped


def to_text(value: Any, output: str) -> str:
    """Indented JSON of records, or YAML; fields in camelCase, as everywhere in the API."""
    if output == "yaml":
        import yaml  # late, because no other output needs it

        plain = msgspec.to_builtins(_camel(value))
        text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
        if escaped(text, keep="\n") != text:  # YAML's own escapes, which a program can read
            text = yaml.safe_dump(plain, sort_keys=False, width=100)
        return text
    raw = msgspec.json.format(msgspec.json.encode(_camel(value)), indent=2)
    return f"{_printable(raw.decode())}\n"


def _printable(text: str) -> str:
    """The same JSON; what a terminal would obey or not show is written as an escape."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def _camel(value: Any) -> Any:
    """Records as mappings with camelCase keys; the keys of mappings are data, and stay."""
    if isinstance(value, Mapping):
        return {key: _camel(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_camel(item) for item in value]
    if is_dataclass(value):
        names = [each.name for each in fields(value)]
    elif isinstance(value, msgspec.Struct):
        names = list(value.__struct_fields__)
    else:
        return value
    return {_camel_name(name): _camel(getattr(value, name)) for name in names}


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
