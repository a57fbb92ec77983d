"""What the user of `cosi driver check` asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosi_operator.api.view import AuthenticationType
from cosi_operator.settings import DEFAULT_DRIVER_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. `timeout_s`: seconds for one call."""

    address: str = DEFAULT_DRIVER_ADDRESS
    parameters: Mapping[str, str] = field(default_factory=dict)
    access_parameters: Mapping[str, str] = field(default_factory=dict)
    authentication: AuthenticationType = AuthenticationType.KEY
    timeout_s: float = 60.0
    include_dangerous: bool = False
    s3: bool = False
    yes: bool = False
