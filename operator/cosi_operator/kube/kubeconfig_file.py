"""The fields of a kubeconfig file that are read; all other fields are ignored.

Source: the kubeconfig v1 reference of Kubernetes.
"""

from typing import Any

import msgspec
from msgspec import Struct

from cosi_operator.scrub.hidden import Hidden


class Cluster(Hidden, rename="kebab"):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None  # may contain a password


class EnvVar(Hidden):
    name: str
    value: str = ""


class Exec(Hidden, rename="camel"):
    command: str
    api_version: str = ""
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None


class User(Hidden, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    auth_provider: dict[str, Any] | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")
    impersonate_groups: list[str] | None = msgspec.field(default=None, name="as-groups")
    impersonate_uid: str | None = msgspec.field(default=None, name="as-uid")
    impersonate_extra: dict[str, Any] | None = msgspec.field(default=None, name="as-user-extra")
    exec: Exec | None = None


class Context(Struct):
    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class NamedCluster(Struct):
    name: str = ""
    cluster: Cluster = msgspec.field(default_factory=Cluster)


class NamedUser(Struct):
    name: str = ""
    user: User = msgspec.field(default_factory=User)


class NamedContext(Struct):
    name: str = ""
    context: Context = msgspec.field(default_factory=Context)


class Kubeconfig(Struct, rename="kebab"):
    current_context: str | None = None
    clusters: list[NamedCluster | None] | None = None
    users: list[NamedUser | None] | None = None
    contexts: list[NamedContext | None] | None = None
