"""What an attacker, a careless driver or a curious reader must not get, on real parts."""

import base64
import json
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import warm
from controlplane import ApiError, ControlPlane
from cosi_operator.outcome import Call, Code
from testbed import NAMESPACE, Testbed, access_body, claim_body, condition
from testbed.bed import ROLES
from testbed.objects import KINDS

OPERATOR = Path(__file__).parents[2] / "operator"
LONGEST_PIECE = 10  # characters of a secret that may stand in a text by chance
CALL_TIMEOUT = "2s"

SHAPES = {  # how careless drivers put a secret into a message
    "bare": "{secret_key}",
    "named": "cannot store secretKey={secret_key} (request 7)",
    "in JSON": '{{"accessSecretKey":"{secret_key}","code":7}}'.replace("{{", "{").replace(
        "}}", "}"
    ),
    "in words": "user made with the key {secret_key}, but the policy failed",
    "in a URL": "PUT https://s3.example.com/b?X-Key={secret_key}&x=1: 403",
    "in a URL's user": "https://admin:{secret_key}@s3.example.com/ refused",
    "in Go's words": 'struct {Key:"AK" Secret:"{secret_key}"} is not valid',
}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{shape}, {code.name}": {"code": code.name, "act": True, "message": words}
        for shape, words in SHAPES.items()
        for code in (Code.INVALID_ARGUMENT, Code.INTERNAL)
    },
    **{
        f"bare, {code.name}": {"code": code.name, "act": True, "message": "{secret_key}"}
        for code in Code
        if code is not Code.OK
    },
    "malformed": {"reply": "malformed"},
    "oversize": {"reply": "oversize"},
    "no credentials": {"reply": "no_credentials"},
    "half of the credentials": {"reply": "partial_credentials"},
    "no account id, but keys": {"reply": "empty_id"},
    "no answer": {"act": True, "hang": True},
    "fine": {},
    "Azure": {"reply": "azure_credentials"},
    "the Secret's name is taken": {},
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class StatusReport:
    """All texts that a person or a program can get, by where they stand."""

    texts: dict[str, str] = field(default_factory=dict)

    def places_of(self, secret: str) -> list[str]:
        pieces = {
            secret[start : start + LONGEST_PIECE + 1]
            for start in range(len(secret) - LONGEST_PIECE)
        }
        encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
        return [
            where
            for where, text in self.texts.items()
            if any(piece in text for piece in pieces) or encoded in text
        ]


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {role: free_port() for role in ROLES}


@pytest.fixture(scope="module")
def loud(ports: dict[str, int]) -> Iterator[Testbed]:
    """A testbed whose processes write all that they can."""
    flags = {r: ["--debug", f"--metrics-bind-address=127.0.0.1:{p}"] for r, p in ports.items()}
    with (
        tempfile.TemporaryDirectory(prefix="cosi-") as directory,
        Testbed.start(
            Path(directory),
            sidecar_flags=[*flags["sidecar"], f"--driver-call-timeout={CALL_TIMEOUT}"],
            controller_flags=flags["controller"],
        ) as bed,
    ):
        yield bed


def run_cosi(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.run_cosi([*words, f"--kubeconfig={kubeconfig}"], environment={}, timeout_s=30)


def cosi(bed: Testbed, *words: str) -> str:
    """What `cosi` prints for the administrator."""
    done = run_cosi(bed.plane.admin_kubeconfig, *words)
    return done.stdout + done.stderr


def everything_told(bed: Testbed, ports: dict[str, int], some: list[str]) -> StatusReport:
    told = StatusReport()
    for role, port in ports.items():
        told.texts[f"log of the {role}"] = bed.log_of(role)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            told.texts[f"metrics of the {role}"] = answer.read().decode()
    for plural in KINDS:
        for body in bed.all_of(plural):
            told.texts[f"{plural} {body['metadata']['name']}"] = json.dumps(body)
    for space in (NAMESPACE, "default"):
        for event in bed.all_of("events", space):
            told.texts[f"Event {event['metadata']['name']}"] = json.dumps(event)
    told.texts["cosi status"] = cosi(bed, "status", "-A")
    for name in some:
        for form in ("text", "json"):
            words = ("why", f"bucketaccess/{name}", "-n", NAMESPACE, "-o", form)
            told.texts[f"cosi why {name}, {form}"] = cosi(bed, *words)
    return told


@pytest.fixture(scope="module")
def granted(loud: Testbed, ports: dict[str, int]) -> dict[str, str]:
    """One access for each case, all of which have come to their end; name by case."""
    names = {case: f"case-{number}" for number, case in enumerate(CASES)}
    loud.make_classes("plain")
    loud.make_claims(names.values(), class_name="plain")
    loud.until_ready("bucketclaims", names.values())
    taken = names["the Secret's name is taken"]
    loud.create("secrets", {"metadata": {"name": f"{taken}-keys"}, "stringData": {"mine": "1"}})
    for case, name in names.items():
        loud.make_classes(name, parameters={"case": name})
        match = {"parameters.case": name}
        loud.driver.set_rule(Call.GRANT_ACCESS, match=match, **CASES[case])
        loud.create("bucketaccesses", access_body(name, class_name=name))

    def all_said() -> bool:
        return all(
            condition(body).get("reason", "WaitingForBucket") != "WaitingForBucket"
            for body in loud.all_of("bucketaccesses")
        )

    loud.until("each access to say how it is", all_said)
    return names


def secrets_of(bed: Testbed) -> dict[str, str]:
    """Every secret that the operator has had in its hands, or that the driver has made."""
    found = {f"secret key of {a.account_id}": a.secret_key for a in bed.driver.accounts()}
    for role, account in bed.accounts.items():
        config = yaml.safe_load(bed.plane.kubeconfig_for(*account).read_text())
        found[f"token of the {role}, another one"] = config["users"][0]["user"]["token"]
    found["token of the administrator"] = bed.plane.admin_token
    return found


def used_tokens(bed: Testbed) -> list[str]:
    """The tokens that the running processes were started with."""
    texts = [p.read_text() for p in (bed.plane.directory / "kubeconfigs").iterdir() if p.is_file()]
    return [yaml.safe_load(text)["users"][0]["user"]["token"] for text in texts]


def test_no_secret_is_told_to_anyone_on_any_path_of_a_grant(
    loud: Testbed, ports: dict[str, int], granted: dict[str, str]
) -> None:
    tokens = used_tokens(loud)
    some = [granted[case] for case in ("fine", "bare, INTERNAL")]
    loud.driver.set_rule(Call.REVOKE_ACCESS, code="INTERNAL", message="again", times=1)
    loud.delete("bucketaccesses", granted["Azure"])
    loud.until_gone("bucketaccesses", [granted["Azure"]])
    told = everything_told(loud, ports, some)
    canaries = secrets_of(loud) | {f"token {n}": t for n, t in enumerate(tokens)}
    assert len(canaries) > len(CASES) / 2
    leaks = {who: told.places_of(secret) for who, secret in canaries.items()}
    shown = {
        f"{who}: {where}": told.texts[where][:0]
        for who, places in leaks.items()
        for where in places
    }
    assert not shown, f"{len(shown)} leaks, for instance {sorted(shown)[:8]}"


def test_the_canaries_would_be_found(loud: Testbed, granted: dict[str, str]) -> None:
    secret = next(iter(loud.driver.accounts())).secret_key
    for text in (f"x{secret}y", secret[:-1], base64.b64encode(secret.encode()).decode()):
        assert StatusReport({"here": text}).places_of(secret) == ["here"]
    assert StatusReport({"here": secret[:LONGEST_PIECE]}).places_of(secret) == []


# --- tenants


def test_a_tenant_can_not_bind_the_bucket_of_another(bed: Testbed, name: str) -> None:
    thief = bed.make_namespace(f"{name}-thief")
    bed.make_classes(name, policy="Delete")
    bed.make_claims([name], class_name=name)
    bed.until_ready("bucketclaims", [name])
    bucket = bed.bucket_of(name)
    own = bucket["metadata"]["name"]
    spec = {**bucket["spec"], "existingBucketID": f"kept-{name}"}
    spec["bucketClaim"] = {"namespace": NAMESPACE, "name": f"{name}-later"}  # reserved, no UID yet
    bed.create("buckets", {"metadata": {"name": f"{name}-reserved"}, "spec": spec})
    for number, wanted in enumerate((own, f"{name}-reserved")):
        body = claim_body(f"{name}-later", existing=wanted, namespace=thief)
        body["metadata"]["name"] = f"{name}-later" if number else name
        bed.create("bucketclaims", body, thief)
        bed.until_reason("bucketclaims", body["metadata"]["name"], "BucketAlreadyBound", thief)
    access = access_body(name, class_name=name, namespace=thief)
    bed.create("bucketaccesses", access, thief)
    bed.until_reason("bucketaccesses", name, "WaitingForBucket", thief)
    for claim in (name, f"{name}-later"):
        bed.delete("bucketclaims", claim, thief)
    bed.until_gone("bucketclaims", [name, f"{name}-later"], thief)
    assert bed.bucket_of(name)["spec"]["bucketClaim"]["namespace"] == NAMESPACE
    assert "deletionTimestamp" not in bed.get("buckets", f"{name}-reserved")["metadata"]
    asked = [e for e in bed.driver.journal(Call.DELETE_BUCKET) if name in str(e.fields)]
    assert asked == []
    bed.delete("bucketaccesses", name, thief)
    bed.until_gone("bucketaccesses", [name], thief)


def test_a_secret_of_someone_else_is_neither_read_nor_written_nor_deleted(
    bed: Testbed, name: str
) -> None:
    victim = bed.make_namespace(f"{name}-victim")
    before = {
        space: bed.create("secrets", {"metadata": {"name": name}, "stringData": {"k": "v"}}, space)
        for space in (victim, NAMESPACE)
    }
    bed.make_classes(name)
    bed.make_claims([name], class_name=name)
    # On upstream's CRDs, which accept them: tests/integration/test_upstream_crds.py.
    for odd in (f"../../{victim}/secrets/{name}", f"{victim}/{name}", f"{name}%2f..", ".."):
        with pytest.raises(ApiError, match=r"spec\.credentialsSecretName"):
            bed.create("bucketaccesses", access_body(name, class_name=name, secret=odd))
    bed.create("bucketaccesses", access_body(name, class_name=name, secret=name))
    bed.until_reason("bucketaccesses", name, "SecretNotOwned")
    bed.delete("bucketaccesses", name)
    bed.until_gone("bucketaccesses", [name])
    for space, body in before.items():
        assert bed.get("secrets", name, space) == body
    uids = [a.name for a in bed.driver.accounts()]
    assert not [uid for uid in uids if name in uid]


def test_annotations_of_a_tenant_do_not_point_a_revoke_at_the_bucket_of_another(
    bed: Testbed, name: str
) -> None:
    victim, attacker = f"{name}-victim", f"{name}-attacker"
    bed.make_classes(name)
    bed.make_claims([victim, attacker], class_name=name)
    bed.make_accesses([victim, attacker], class_name=name)
    bed.until_ready("bucketaccesses", [victim, attacker])
    target = bed.bucket_of(victim)["status"]["bucketID"]
    account = bed.get("bucketaccesses", victim)["status"]["accountID"]
    forged = {
        "cosi.objectstorage.k8s.io/bucket-id": target,
        "cosi.objectstorage.k8s.io/account-id": account,
    }

    def forge(body: dict[str, Any]) -> None:
        body["metadata"].setdefault("annotations", {}).update(forged)

    bed.edit("bucketaccesses", attacker, forge)
    bed.edit("secrets", f"{attacker}-keys", forge)
    mine = bed.get("bucketaccesses", attacker)["status"]["accountID"]
    mark = len(bed.driver.journal())
    bed.delete("bucketaccesses", attacker)
    bed.until_gone("bucketaccesses", [attacker])
    asked = [e.fields for e in bed.driver.journal()[mark:] if e.call is Call.REVOKE_ACCESS]
    assert {(f["bucket_id"], f["account_id"]) for f in asked} == {
        (bed.bucket_of(attacker)["status"]["bucketID"], mine)
    }
    assert account in {found.account_id for found in bed.driver.accounts()}
    assert bed.find("secrets", f"{victim}-keys") is not None
    bed.delete_all("bucketclaims", [victim, attacker])
    bed.until_gone("bucketclaims", [victim, attacker])


# --- TLS


def test_an_api_server_that_our_ca_did_not_sign_is_refused_in_words(
    bed: Testbed, tmp_path: Path
) -> None:
    plane: ControlPlane = bed.plane
    config = yaml.safe_load(plane.admin_kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    cluster.pop("certificate-authority", None)
    cluster.pop("certificate-authority-data", None)  # what is left are the machine's own CAs
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    done = run_cosi(file, "status", "-n", NAMESPACE)
    assert done.returncode == 2
    assert "certificate" in done.stderr
    assert plane.admin_token not in done.stderr + done.stdout
