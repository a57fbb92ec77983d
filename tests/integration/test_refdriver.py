"""The reference driver over gRPC, as its own process, on a real SeaweedFS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from botocore.exceptions import ClientError

from awsclient import Account
from cosi_operator.rpc import cosi_pb2 as pb
from cosi_operator.rpc import cosi_pb2_grpc as pb_grpc
from refdriver import RefDriver
from seaweed import SeaweedFS

CALL_TIMEOUT_S = 15.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS.start(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="module")
def driver(server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefDriver]:
    with RefDriver.start(tmp_path_factory.mktemp("driver"), server.account) as driver:
        yield driver


@pytest.fixture
def asked(driver: RefDriver) -> Iterator["Asked"]:
    with grpc.insecure_channel(driver.address) as channel:
        yield Asked(channel)


class Asked:
    """The four provisioning calls with plain arguments."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = pb_grpc.ProvisionerStub(channel)

    def create(self, name: str, **parameters: str) -> pb.DriverCreateBucketResponse:
        request = pb.DriverCreateBucketRequest(name=name, parameters=parameters)
        return self._stub.DriverCreateBucket(request, timeout=CALL_TIMEOUT_S)

    def delete(self, bucket_id: str) -> None:
        request = pb.DriverDeleteBucketRequest(bucket_id=bucket_id)
        self._stub.DriverDeleteBucket(request, timeout=CALL_TIMEOUT_S)

    def grant(
        self, bucket_id: str, name: str, kind: pb.AuthenticationType.ValueType = pb.Key
    ) -> pb.DriverGrantBucketAccessResponse:
        request = pb.DriverGrantBucketAccessRequest(
            bucket_id=bucket_id, name=name, authentication_type=kind
        )
        return self._stub.DriverGrantBucketAccess(request, timeout=CALL_TIMEOUT_S)

    def revoke(self, bucket_id: str, account_id: str) -> None:
        request = pb.DriverRevokeBucketAccessRequest(bucket_id=bucket_id, account_id=account_id)
        self._stub.DriverRevokeBucketAccess(request, timeout=CALL_TIMEOUT_S)


def s3_of(reply: pb.DriverGrantBucketAccessResponse) -> Any:
    """A client made of nothing but what the driver replied."""
    secrets = reply.credentials["s3"].secrets
    return Account(
        secrets["endpoint"], secrets["region"], secrets["accessKeyID"], secrets["accessSecretKey"]
    ).s3()


def refusal(raised: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    error: Any = raised.value  # what a stub raises is a grpc.Call too, which its type can't say
    return error.code(), error.details()


def s3_error(raised: pytest.ExceptionInfo[ClientError]) -> str:
    return str(raised.value.response["Error"]["Code"])


def test_the_driver_tells_its_name(driver: RefDriver) -> None:
    with grpc.insecure_channel(driver.address) as channel:
        reply = pb_grpc.IdentityStub(channel).DriverGetInfo(
            pb.DriverGetInfoRequest(), timeout=CALL_TIMEOUT_S
        )
    assert reply.name == driver.name


def test_creating_twice_gives_one_bucket_with_one_id(server: SeaweedFS, asked: Asked) -> None:
    first, second = asked.create("twice-1"), asked.create("twice-1")
    assert first == second
    assert first.bucket_id == "twice-1"
    assert first.bucket_info.s3.region == server.region
    assert server.buckets().count("twice-1") == 1


def test_a_class_parameter_goes_in_front_of_the_name(server: SeaweedFS, asked: Asked) -> None:
    assert asked.create("shop-1", namePrefix="team-a-").bucket_id == "team-a-shop-1"
    assert "team-a-shop-1" in server.buckets()


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        pytest.param(
            "b-1",
            {"namePrefix": "Bad_Name-"},
            "InvalidBucketName: The specified bucket is not valid. (bucket Bad_Name-b-1)",
            id="S3 refuses the name",
        ),
        pytest.param("a b", {}, "Invalid bucket name", id="the name can't even be sent to S3"),
        pytest.param("", {}, "name is empty", id="there is no name"),
        pytest.param(
            "b-1", {"size": "1"}, "unknown parameter: size", id="nobody knows a parameter"
        ),
    ],
)
def test_a_bucket_that_can_never_be_is_an_invalid_argument(
    asked: Asked, name: str, parameters: dict[str, str], words: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        asked.create(name, **parameters)
    code, message = refusal(raised)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in message


def test_keys_work_on_their_bucket_and_on_no_other(asked: Asked) -> None:
    asked.create("mine-1")
    asked.create("other-1")
    reply = asked.grant("mine-1", "ba-mine")
    assert reply.account_id == "ba-mine"
    s3 = s3_of(reply)
    s3.put_object(Bucket="mine-1", Key="a/b", Body=b"hello")
    assert s3.get_object(Bucket="mine-1", Key="a/b")["Body"].read() == b"hello"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="mine-1")["Contents"]] == ["a/b"]
    with pytest.raises(ClientError) as raised:
        s3.put_object(Bucket="other-1", Key="a", Body=b"hello")
    assert s3_error(raised) == "AccessDenied"


def test_keys_cannot_delete_the_bucket_itself(server: SeaweedFS, asked: Asked) -> None:
    asked.create("kept-1")
    with pytest.raises(ClientError) as raised:
        s3_of(asked.grant("kept-1", "ba-kept")).delete_bucket(Bucket="kept-1")
    assert s3_error(raised) == "AccessDenied"
    assert "kept-1" in server.buckets()


def test_granting_again_replaces_the_key_of_the_same_account(
    server: SeaweedFS, asked: Asked
) -> None:
    asked.create("again-1")
    first, second = asked.grant("again-1", "ba-again"), asked.grant("again-1", "ba-again")
    assert first.account_id == second.account_id
    assert server.users().count("ba-again") == 1
    s3_of(second).put_object(Bucket="again-1", Key="a", Body=b"new")
    with pytest.raises(ClientError) as raised:
        s3_of(first).get_object(Bucket="again-1", Key="a")
    assert s3_error(raised) == "InvalidAccessKeyId"


def test_a_grant_for_a_missing_bucket_is_not_found_and_leaves_no_user(
    server: SeaweedFS, asked: Asked
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        asked.grant("absent-1", "ba-absent")
    assert refusal(raised)[0] is grpc.StatusCode.NOT_FOUND
    assert "ba-absent" not in server.users()


@pytest.mark.parametrize("kind", [pb.IAM, pb.UnknownAuthenticationType])
def test_only_keys_are_granted(asked: Asked, kind: pb.AuthenticationType.ValueType) -> None:
    asked.create("keys-1")
    with pytest.raises(grpc.RpcError) as raised:
        asked.grant("keys-1", "ba-keys", kind)
    assert refusal(raised)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_revoked_key_is_refused_and_its_user_is_gone(server: SeaweedFS, asked: Asked) -> None:
    asked.create("revoked-1")
    revoked, standing = asked.grant("revoked-1", "ba-gone"), asked.grant("revoked-1", "ba-stays")
    asked.revoke("revoked-1", "ba-gone")
    with pytest.raises(ClientError) as raised:
        s3_of(revoked).list_objects_v2(Bucket="revoked-1")
    assert s3_error(raised) == "InvalidAccessKeyId"
    s3_of(standing).list_objects_v2(Bucket="revoked-1")
    assert "ba-gone" not in server.users()
    with pytest.raises(grpc.RpcError) as again:
        asked.revoke("revoked-1", "ba-gone")
    assert refusal(again)[0] is grpc.StatusCode.NOT_FOUND


def test_a_bucket_with_data_is_not_deleted_and_an_empty_one_is(
    server: SeaweedFS, asked: Asked
) -> None:
    asked.create("full-1")
    server.s3().put_object(Bucket="full-1", Key="a", Body=b"precious")
    with pytest.raises(grpc.RpcError) as raised:
        asked.delete("full-1")
    assert refusal(raised)[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert server.s3().get_object(Bucket="full-1", Key="a")["Body"].read() == b"precious"

    server.s3().delete_object(Bucket="full-1", Key="a")
    asked.delete("full-1")
    assert "full-1" not in server.buckets()
    with pytest.raises(grpc.RpcError) as again:
        asked.delete("full-1")
    assert refusal(again)[0] is grpc.StatusCode.NOT_FOUND


def test_deleting_with_an_empty_id_touches_nothing(server: SeaweedFS, asked: Asked) -> None:
    before = server.buckets()
    with pytest.raises(grpc.RpcError) as raised:
        asked.delete("")
    assert refusal(raised)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert server.buckets() == before


def test_every_call_is_recorded_and_no_secret_is(driver: RefDriver, asked: Asked) -> None:
    asked.create("logged-1")
    secrets = asked.grant("logged-1", "ba-logged").credentials["s3"].secrets
    grant = driver.calls()[-1]
    assert (grant.call, grant.subject, grant.code) == (
        "DriverGrantBucketAccess",
        "logged-1 ba-logged",
        "OK",
    )
    assert secrets["accessSecretKey"] not in driver.log_file.read_text()


def test_a_backend_that_is_down_is_unavailable(server: SeaweedFS, tmp_path: Path) -> None:
    nobody = Account("http://127.0.0.1:9", server.region, "key", "secret")  # the discard port
    with (
        RefDriver.start(tmp_path, nobody) as driver,
        grpc.insecure_channel(driver.address) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        Asked(channel).create("down-1")
    assert refusal(raised)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_driver_whose_own_key_is_unknown_says_so(server: SeaweedFS, tmp_path: Path) -> None:
    stranger = Account(server.endpoint, server.region, "AKIAUNKNOWNUNKNOWNUN", "secret")
    with (
        RefDriver.start(tmp_path, stranger) as driver,
        grpc.insecure_channel(driver.address) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        Asked(channel).create("stranger-1")
    assert refusal(raised)[0] is grpc.StatusCode.UNAUTHENTICATED
