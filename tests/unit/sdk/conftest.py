"""One API server at the wire for the SDK, in a thread, because the synchronous classes block."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest
from tests.support.apiserver import StubApiServer, serving
from tests.support.sdk import OpenApis, written

from cosi_operator.api.core import SECRETS
from cosi_operator.api.resources import (
    BUCKET_ACCESS_CLASSES,
    BUCKET_ACCESSES,
    BUCKET_CLAIMS,
    BUCKET_CLASSES,
    BUCKETS,
)
from cosi_operator.api.view import Key
from cosi_operator.sdk import objects

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"


@dataclass(frozen=True, slots=True)
class Shop:
    """A server with the claim `photos`, its access `photos-keys` and its Secret, in `shop`."""

    server: StubApiServer
    kubeconfig: Path


def bucket_info(**spec: Any) -> dict[str, Any]:
    s3 = {
        "endpoint": "https://s3.example.com",
        "region": "eu-1",
        "accessKeyID": KEY_ID,
        "accessSecretKey": SECRET_KEY,
    }
    return {"spec": {"bucketName": "bucket-1", "secretS3": s3, "secretAzure": None, **spec}}


def put_secret(server: StubApiServer, **values: str) -> None:
    """The Secret of the access `photos-keys`, as the sidecar writes it."""
    access = server.objects[BUCKET_ACCESSES.path("shop", "photos-keys")]
    info = {"metadata": {"name": f"bc-{access['metadata']['uid']}"}, **bucket_info()}
    data = {"BucketInfo": json.dumps(info), "COSI_S3_BUCKET_ID": "photos-1", **values}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    server.put(SECRETS, Key("shop", "photos-keys"), data=encoded)


def fill(server: StubApiServer) -> None:
    server.put(BUCKET_CLASSES, Key("", "gold"), driverName="d.example.com")
    server.put(
        BUCKET_ACCESS_CLASSES,
        Key("", "keys"),
        driverName="d.example.com",
        authenticationType="Key",
    )
    server.put(
        BUCKET_CLAIMS,
        Key("shop", "photos"),
        spec={"bucketClassName": "gold", "protocols": ["S3"]},
        status={"bucketReady": True, "bucketName": "bucket-1"},
    )
    server.put(
        BUCKETS,
        Key("", "bucket-1"),
        spec={"driverName": "d.example.com"},
        status={"bucketReady": True, "bucketID": "photos-1"},
    )
    server.put(
        BUCKET_ACCESSES,
        Key("shop", "photos-keys"),
        spec={
            "bucketAccessClassName": "keys",
            "bucketClaimName": "photos",
            "credentialsSecretName": "photos-keys",
        },
        status={"accessGranted": True, "accountID": "account-1"},
    )
    put_secret(server)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving()) as server,
    ):
        fill(server)
        kubeconfig = written(server, tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.setattr(objects, "_apis", {})
        apis = OpenApis(monkeypatch)
        yield Shop(server, kubeconfig)
        apis.close()
