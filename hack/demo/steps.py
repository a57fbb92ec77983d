"""The story, step by step; each step checks what it shows."""

import base64
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from awsclient import Account
from cosi_operator.sdk import BucketAccess, BucketClaim
from demo.screen import CheckError, masked
from demo.world import NAMESPACE, World, eventually, log_files

WAIT = "--timeout=30s"
QUIET_S = 5.0
"""How long the driver is watched for a second call; one that backs off from 1 s makes two."""

COSI = "/apis/objectstorage.k8s.io/v1alpha1"
KINDS = ("bucketclaims", "buckets", "bucketaccesses", "bucketclasses", "bucketaccessclasses")
FINALIZER_DOMAIN = "cosi.objectstorage.k8s.io/"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story."""

    title: str
    run: Callable[[World], None]


def offer_classes(world: World) -> None:
    """The administrator's part."""
    world.screen.say("The administrator says once what teams can ask for.")
    world.apply("classes.yaml")
    names = [item["metadata"]["name"] for item in world.get(f"{COSI}/bucketclasses")["items"]]
    world.screen.check(names == ["standard"], "the class standard is there")


def claim_bucket(world: World) -> None:
    """A BucketClaim becomes ready and the bucket exists."""
    world.screen.say("A team asks for a bucket. The sidecar has the driver make it, once.")
    world.apply("claim.yaml")
    world.kubectl("wait", "--for=condition=Ready", "bucketclaim/photos", "-n", NAMESPACE, WAIT)
    world.kubectl("get", "bucketclaim/photos", "-n", NAMESPACE)
    claim = world.get(f"{COSI}/namespaces/{NAMESPACE}/bucketclaims/photos")
    bucket = world.get(f"{COSI}/buckets/{claim['status']['bucketName']}")["status"]["bucketID"]
    is_ready = BucketClaim.get("photos", NAMESPACE, world.api()).is_ready
    world.screen.check(is_ready, "the claim says bucketReady")
    world.screen.check(world.storage.buckets() == [bucket], f"S3 has the bucket {bucket}")
    created = _asked(world, "DriverCreateBucket", claim)
    world.screen.check(created == ["OK"], "the driver was asked once")


def grant_access(world: World) -> None:
    """A BucketAccess becomes ready and its Secret holds keys."""
    world.screen.say("An application asks for keys. They arrive in a Secret, shown masked here.")
    world.apply("access.yaml")
    world.kubectl("wait", "--for=condition=Ready", "bucketaccess/photos-app", "-n", NAMESPACE, WAIT)
    world.kubectl("get", "secret", "photos-keys", "-n", NAMESPACE, "-o", "json", show=False)
    info = _bucket_info(world)
    spec = info["spec"]
    s3 = spec["secretS3"]
    shown = {**s3, "accessKeyID": masked(s3["accessKeyID"]), "accessSecretKey": masked("")}
    world.screen.say("its key BucketInfo, decoded:")
    world.screen.output(json.dumps({"spec": {**spec, "secretS3": shown}}, indent=2))
    keys = BucketAccess.get("photos-app", NAMESPACE, world.api()).credentials()
    world.minted.append(
        Account(keys.endpoint, keys.region, keys.access_key_id, keys.access_secret_key)
    )
    world.screen.check(spec["authenticationType"].lower() == "key", "the Secret holds a key")
    world.screen.check(
        [spec["bucketName"]] == world.storage.buckets(), "and names the bucket as S3 knows it"
    )
    access = world.get(f"{COSI}/namespaces/{NAMESPACE}/bucketaccesses/photos-app")
    world.screen.check(
        world.storage.users() == [access["status"]["accountID"]],
        f"S3 has one user: {access['status']['accountID']}",
    )


def use_keys(world: World) -> None:
    """The keys store and read; a made-up key does not."""
    bucket = world.storage.buckets()[0]
    photo = secrets.token_bytes(64 * 1024)
    s3 = world.minted[-1].s3()
    s3.put_object(Bucket=bucket, Key="holiday.jpg", Body=photo)
    got = s3.get_object(Bucket=bucket, Key="holiday.jpg")["Body"].read()
    world.screen.check(got == photo, "stored 64 KiB with the minted key, and read the same back")

    stranger = Account(
        world.storage.endpoint, world.storage.region, "AKIAMADEUPMADEUPMADE", "made-up"
    )
    refusal = _refusal(stranger, bucket)
    world.screen.check(refusal == "InvalidAccessKeyId", f"a made-up key is refused: {refusal}")

    s3.delete_object(Bucket=bucket, Key="holiday.jpg")
    left = s3.list_objects_v2(Bucket=bucket)["KeyCount"]
    world.screen.check(left == 0, "the application has removed its object again")


def revoke_access(world: World) -> None:
    """Deleting the BucketAccess ends the keys and removes the Secret."""
    world.screen.say("The application goes. Deleting its BucketAccess makes the key useless.")
    world.kubectl("delete", "bucketaccess/photos-app", "-n", NAMESPACE, WAIT)
    refusal = _refusal(world.minted[-1], world.storage.buckets()[0])
    world.screen.check(refusal == "InvalidAccessKeyId", f"the old key is refused: {refusal}")
    world.screen.check(world.storage.users() == [], "S3 has no user left")
    found = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]
    world.screen.check(found == [], "the Secret is gone")


def refuse_claim(world: World) -> None:
    """A claim that can't succeed says why, once, and the driver is left in peace."""
    world.screen.say(
        "Now a mistake: a class whose namePrefix makes every bucket's name invalid. The driver"
        " refuses with INVALID_ARGUMENT each time. A retry would fail too, so"
        " the operator does not retry, and the claim says why."
    )
    world.apply("refused.yaml")
    world.kubectl("wait", "--for=condition=Stalled", "bucketclaim/refused", "-n", NAMESPACE, WAIT)
    describe = ("describe", "bucketclaim", "refused", "-n", NAMESPACE)
    eventually(  # an Event is sent after the status that it is about
        "the claim's Event", lambda: "FailedCreateBucket" in world.plane.run_kubectl(*describe)
    )
    described = world.kubectl(*describe)
    for text, what in (
        ("DriverInvalidArgument", "the reason"),
        ("InvalidBucketName: The specified bucket is not valid.", "the driver's own words"),
        ("ask your cluster administrator to correct", "what to do"),
        ("kubectl annotate", "how to retry"),
        ("FailedCreateBucket", "an Event"),
    ):
        world.screen.check(text in described, f"kubectl describe shows {what}: {text}")
    claim = world.get(f"{COSI}/namespaces/{NAMESPACE}/bucketclaims/refused")
    world.screen.say(f"Watching the driver's log for {QUIET_S:.0f} s.")
    time.sleep(QUIET_S)
    answers = _asked(world, "DriverCreateBucket", claim)
    world.screen.check(
        answers == ["INVALID_ARGUMENT"], f"the driver was asked once and not again: {answers}"
    )


def delete_all(world: World) -> None:
    """Both claims can be deleted, and then the classes."""
    claims = ["bucketclaim/photos", "bucketclaim/refused"]
    world.kubectl("delete", *claims, "-n", NAMESPACE, WAIT)
    asked = [call for call in world.driver.calls() if call.call == "DriverDeleteBucket"]
    world.screen.check(
        [call.code for call in asked] == ["OK"] and all(call.subject for call in asked),
        "the driver deleted the one bucket; for the refused claim there was nothing to delete",
    )
    classes = ["bucketclass/standard", "bucketclass/misnamed", "bucketaccessclass/keys"]
    world.kubectl("delete", *classes, WAIT)
    world.screen.check(world.get(f"{COSI}/bucketclasses")["items"] == [], "the classes are gone")


def nothing_is_left(world: World) -> None:
    """Nothing in the API server, nothing on S3, and no call that a role did not allow."""
    eventually("the last object of ours to go", lambda: _objects(world) == [])
    world.screen.check(_objects(world) == [], f"no {', '.join(KINDS)}")
    secrets_left = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]
    world.screen.check(secrets_left == [], f"no Secrets in {NAMESPACE}")
    everything = world.plane.run_kubectl(
        "get", "secrets,serviceaccounts,configmaps", "--all-namespaces", "-o", "json"
    )
    world.screen.check(FINALIZER_DOMAIN not in everything, "no finalizer of ours on anything")
    world.screen.check(world.storage.buckets() == [], "no bucket on S3")
    world.screen.check(world.storage.users() == [], "no user on S3")
    forbidden = world.plane.audit.entries(
        where=lambda entry: entry.code == 403 and entry.user in world.users
    )
    world.screen.check(
        forbidden == [],
        "no request of the operator was forbidden"
        + "".join(f"; {entry.user} {entry.verb} {entry.uri}" for entry in forbidden),
    )
    logs = "".join(file.read_text(errors="replace") for file in log_files(world.directory))
    leaked = [account for account in world.minted if account.secret_key in logs]
    world.screen.check(leaked == [], "no log has a secret key in it")
    running = [process.name for process in world.operator if process.is_running]
    world.screen.check(len(running) == 2, f"{' and '.join(running)} still run")


STORY = (
    Step("Classes: what can be asked for", offer_classes),
    Step("A claim, and a bucket", claim_bucket),
    Step("An access, and keys", grant_access),
    Step("The keys work, others do not", use_keys),
    Step("The access goes, and so do the keys", revoke_access),
    Step("A refusal that is told once", refuse_claim),
    Step("Everything is deleted", delete_all),
    Step("Nothing is left", nothing_is_left),
)


def _objects(world: World) -> list[str]:
    """Return every object of the five kinds, as in ["buckets/bucket-1"]."""
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind in KINDS
        for item in world.get(f"{COSI}/{kind}")["items"]
    ]


def _bucket_info(world: World) -> dict[str, Any]:
    secret = world.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/photos-keys")
    decoded: dict[str, Any] = json.loads(base64.b64decode(secret["data"]["BucketInfo"]))
    return decoded


def _asked(world: World, call: str, claim: dict[str, Any]) -> list[str]:
    """Return the codes that the driver answered `call` with for a claim's bucket."""
    name = f"bucket-{claim['metadata']['uid']}"
    return [
        found.code for found in world.driver.calls() if (found.call, found.subject) == (call, name)
    ]


def _refusal(account: Account, bucket: str) -> str:
    """Return the error that S3 refuses a key with.

    Raises:
        CheckError: it does not refuse.
    """
    try:
        account.s3().list_objects_v2(Bucket=bucket)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    raise CheckError("expected: S3 refuses this key")
