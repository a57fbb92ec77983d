"""What the SDKs of AWS and Azure need, from what a driver returned. Pure.

The sidecar writes these values into Secrets; `cosi_operator.sdk` makes them for Secrets that have
`BucketInfo` only.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit

# The default region of S3 clients, which S3 servers without regions expect. Several drivers (Ceph,
# Dell) return no region, and the SDKs for Java, JavaScript and Go fail without one.
DEFAULT_REGION = "us-east-1"


def with_scheme(endpoint: str) -> str:
    """The endpoint as a URL; an endpoint without a scheme gets https."""
    # Linode's API, for example, returns host names only, which no SDK accepts. Add https, because
    # http could send data unencrypted.
    return endpoint if not endpoint or "://" in endpoint else f"https://{endpoint}"


def split_sas(token: str) -> tuple[str, str]:
    """Account and SAS token from an access token, which is a URL with the SAS as its query.

    Both are "" when the token has another format. A token that is not a URL can be a SAS token.
    """
    try:
        url = urlsplit(token)
        if url.scheme in ("http", "https"):
            return _account(url), url.query
    except ValueError:  # for example, a bracket without an IPv6 address
        return "", ""
    bare = token.removeprefix("?")
    return "", bare if "sig=" in bare else ""


def _account(url: SplitResult) -> str:
    """From https://ACCOUNT.blob.core.windows.net/..., or for an emulator http://IP:PORT/ACCOUNT."""
    host = url.hostname or ""
    account, _, rest = host.partition(".")
    if rest.startswith("blob."):
        return account
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            return ""
    return url.path.strip("/").partition("/")[0]


def aws_environment(
    endpoint: str, region: str, access_key_id: str, access_secret_key: str
) -> dict[str, str]:
    """The variables that the SDKs and command line tools of AWS read. A value may be ""."""
    region = region or DEFAULT_REGION
    return {
        "AWS_ENDPOINT_URL": with_scheme(endpoint),
        # The SDKs for Java and JavaScript read AWS_REGION only; boto3 reads AWS_DEFAULT_REGION.
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": access_key_id,
        "AWS_SECRET_ACCESS_KEY": access_secret_key,
    }


def azure_environment(access_token: str) -> dict[str, str]:
    """The variables that the SDKs and command line tools of Azure read. A value may be ""."""
    account, sas_token = split_sas(access_token)
    return {"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_SAS_TOKEN": sas_token}
