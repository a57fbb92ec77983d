"""Several kubeconfig files as one, by kubectl's rules.

The first file to name a thing wins, a missing file is skipped, and a relative path is relative to
the file that contains it. kr8s merges differently (the last file wins), so it is given the result.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec

from cosi_operator.api.view import is_path_segment
from cosi_operator.kube.kubeconfig_file import Cluster, Kubeconfig, User
from cosi_operator.kube.kubeconfig_yaml import InvalidYamlError, parse_yaml
from cosi_operator.scrub import escaped, shown_name


class KubeconfigError(Exception):
    """The configuration can't be used. Names the file, the field and what to do; no secret."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(text))


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context with its cluster and user. `at_*` name the entry in its file, for messages."""

    context: str
    namespace: str
    cluster: Cluster
    cluster_path: Path
    at_cluster: str
    user: User
    user_path: Path
    at_user: str


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    content: Kubeconfig


async def choose(source: str, names: str, context: str = "") -> Chosen:
    """Read the files `names`, joined as in KUBECONFIG, and look one context up.

    Args:
        source: the setting that named the files, for messages.
        context: overrides the files' current-context.
    Raises:
        KubeconfigError: no file exists, one can't be read, or an entry is missing.
    """
    try:
        named = [name for name in names.split(os.pathsep) if name]
        paths = [await anyio.Path(name).expanduser() for name in named]
        found = [Path(path) for path in paths if await path.exists()]
    except (OSError, RuntimeError) as error:  # RuntimeError: "~nobody" has no home
        raise KubeconfigError(
            f"{source}: the path can't be resolved ({error}); give the path of the file"
        ) from None
    files = [await _read_file(path) for path in found]
    if not files:
        all_of_them = ", ".join(map(str, paths))
        missing = f"none of {all_of_them} exists"
        if len(paths) == 1:
            missing = f"{all_of_them} does not exist"
        elif not paths:  # ":"
            missing = "it names no file"
        raise KubeconfigError(
            f"{source}: {missing}; "
            "create the file, or leave the setting out to use the pod's service account, or"
            " ~/.kube/config outside a pod"
        )
    return _resolve(files, context)


async def _read_file(path: Path) -> _File:
    try:
        loaded = parse_yaml(await anyio.Path(path).read_text(encoding="utf-8"))
    except InvalidYamlError as error:
        raise KubeconfigError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise KubeconfigError(f"{path}: is not UTF-8 text; store it as UTF-8") from None
    except OSError as error:
        raise KubeconfigError(f"{path}: can't be read: {error.strerror or error}") from None
    try:
        # An empty file counts as one without entries, as in kubectl.
        return _File(path, msgspec.convert({} if loaded is None else loaded, Kubeconfig))
    except msgspec.ValidationError as error:
        raise KubeconfigError(
            f"{path}: {error}; correct this value (in quotes, if it is a text that looks like a"
            " number, a date or yes)"
        ) from None


def _resolve(files: Sequence[_File], wanted: str) -> Chosen:
    current = (file.content.current_context for file in files)
    name = wanted or next((each for each in current if each), None)
    if not name:
        raise KubeconfigError(
            f"{files[0].path}: current-context is not set; run `kubectl config use-context`"
        )
    path, context = _named(files, "contexts", "context", name)
    if not context.cluster:
        raise KubeconfigError(f"{path}: contexts[{name}].cluster is empty; name one of `clusters`")
    if context.namespace and not is_path_segment(context.namespace):
        raise KubeconfigError(
            f"{path}: contexts[{name}].namespace: '{shown_name(context.namespace)}' is not a name"
            " of a namespace; correct it, or run `kubectl config set-context NAME --namespace=...`"
        )
    cluster_path, cluster = _named(files, "clusters", "cluster", context.cluster)
    user_path, user = (
        _named(files, "users", "user", context.user) if context.user else (path, User())
    )
    return Chosen(
        name,
        context.namespace or "default",
        cluster,
        cluster_path,
        f"{cluster_path}: clusters[{context.cluster}]",
        user,
        user_path,
        f"{user_path}: users[{context.user}]",
    )


def _named(files: Sequence[_File], plural: str, singular: str, name: str) -> tuple[Path, Any]:
    there = []
    for file in files:
        for entry in getattr(file.content, plural) or ():
            if entry is None:
                continue
            there.append(entry.name)
            if entry.name == name:
                return file.path, getattr(entry, singular)
    raise KubeconfigError(
        f"{', '.join(str(file.path) for file in files)}: no `{name}` in {plural}; "
        f"add it, or choose another context (there are: {', '.join(there) or 'none'})"
    )
