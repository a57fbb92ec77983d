r"""What the SDK raises, besides `kr8s.NotFoundError` for an object that does not exist.

    Exception
    ├── SdkError
    │   ├── NotReadyError     not ready within the timeout; also a TimeoutError
    │   ├── StalledError      the operator does not retry until something changes
    │   ├── CredentialsError  the Secret is missing, or lacks what was asked for
    │   └── NotInstalledError the cluster does not serve COSI's API
    ├── ApiError              the API server refused: Forbidden and others
    ├── ApiSilent             no answer from the API server
    └── KubeconfigError       no usable kubeconfig; the text names every place that was searched

No text of an error holds a credential, or a control character: these show as `\x1b`.
"""

from cosi_operator.kube.errors import ApiError as ApiError
from cosi_operator.kube.errors import ApiSilent as ApiSilent
from cosi_operator.kube.errors import Forbidden as Forbidden
from cosi_operator.kube.kubeconfig_merge import KubeconfigError as KubeconfigError
from cosi_operator.scrub import escaped


class SdkError(Exception):
    """Base class of the errors below."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(text))


class NotReadyError(SdkError, TimeoutError):
    """The object did not become ready within the timeout. The text says what it waits for."""


class StalledError(SdkError):
    """The operator stopped, and continues only after a change. The text says why."""


class CredentialsError(SdkError):
    """The credentials can't be read or used. The text names what is missing, never a value."""


class NotInstalledError(SdkError):
    """The cluster does not serve COSI's API, because its CRDs are not installed."""
