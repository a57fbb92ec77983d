"""Parses the YAML of a kubeconfig, in a time that is bounded even if the file has aliases."""

import json
from itertools import chain
from typing import Any

# How many nodes the aliases of a file may add to it. A kubeconfig needs none. Without a limit, nine
# lines that each name the line before nine times are 9^9 nodes. kubectl has a limit too.
ALIASED_NODES = 10_000


class InvalidYamlError(Exception):
    """The text can't be used. Quotes none of it."""


def parse_yaml(text: str) -> Any:
    """The value of the first document, None for an empty one.

    As for kubectl, JSON may have tabs, documents after the first are ignored, and a null is the
    same as no value.

    Raises:
        InvalidYamlError: the text is not YAML, or has values that no kubeconfig can have.
    """
    import yaml  # late, because a pod with a service account never needs it

    try:
        if (found := _parse_json(text)) is not None:
            return _without_nulls(found)
        loader = yaml.SafeLoader(text)
        node = loader.get_node() if loader.check_node() else None
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _size(node, sizes) - len(sizes) > ALIASED_NODES:
            raise InvalidYamlError("repeats too much by aliases (`*name`); write the values out")
        return _without_nulls(loader.construct_document(node))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text would quote the file
        where = f" (line {mark.line + 1})" if mark else ""
        raise InvalidYamlError(f"is not YAML{where}; correct it, or write the file anew") from None
    except InvalidYamlError:
        raise
    except Exception:  # noqa: BLE001 - PyYAML's constructors raise whatever a value leads to
        # A 31st of February, a thousand brackets, or `!!timestamp x`.
        raise InvalidYamlError(
            "contains values that are invalid in a kubeconfig; put dates in quotes, and remove"
            " tags (`!!name`)"
        ) from None


def _parse_json(text: str) -> Any:
    """The object at the start of the text; None if it is not JSON. PyYAML allows no tabs in it."""
    start = text.removeprefix("\ufeff").lstrip()
    if not start.startswith("{"):
        return None
    try:
        return json.JSONDecoder().raw_decode(start)[0]
    except (ValueError, RecursionError):
        return None


def _without_nulls(value: Any) -> Any:
    todo, seen = [value], set()
    while todo:  # no recursion, because an anchor can contain itself
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            for name in [name for name, below in each.items() if below is None]:
                del each[name]
            todo += each.values()
        elif isinstance(each, list):
            todo += each
    return value


def _size(node: Any, sizes: dict[int, int]) -> int:
    """The number of nodes from `node` on, with those under an alias counted at each use.

    `sizes` has each node once. An alias inside the anchor that it names adds nothing.
    """
    if (known := sizes.get(id(node))) is not None:
        return known
    sizes[id(node)] = 0
    below = () if isinstance(node.value, str) else node.value
    if node.id == "mapping":
        below = chain.from_iterable(below)
    sizes[id(node)] = 1 + sum(_size(each, sizes) for each in below)
    return sizes[id(node)]
