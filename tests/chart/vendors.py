"""How the public manifests of real drivers start their sidecar: facts only, no text of theirs.

For each: where it was read, the sidecar's arguments and environment, and the rules that its account
has. All mount an emptyDir at /var/lib/cosi and give no command.
"""

from collections.abc import Iterable
from dataclasses import dataclass

COSI = "objectstorage.k8s.io"
LEASES = "coordination.k8s.io"
ALL = "get list watch update create delete"
CRUD = "get create update delete"
KINDS = "buckets bucketaccesses bucketclaims bucketaccessclasses"
STATUS = "buckets/status bucketaccesses/status bucketclaims/status"
CLASS_STATUS = "bucketaccessclasses/status"

type Rule = tuple[str, str, str]
"""API group, resources and verbs, the last two separated by blanks."""

FULL: Rule = (COSI, f"{KINDS} {STATUS} {CLASS_STATUS}", ALL)
FULL_LEASES: Rule = (LEASES, "leases", ALL)


@dataclass(frozen=True, slots=True)
class Vendor:
    """One driver's way. `env` None stands for a fieldRef to metadata.namespace."""

    name: str
    read_at: str
    rules: tuple[Rule, ...]
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str | None], ...] = ()
    can_delete_secrets: bool = True


POD_NAMESPACE: tuple[tuple[str, str | None], ...] = (("POD_NAMESPACE", None),)

VENDORS = (
    Vendor(
        "sample",
        "kubernetes-sigs/cosi-driver-sample 08bc8f7 (deployment), d94939a (role)",
        (FULL, FULL_LEASES, ("", "events secrets", CRUD)),
        env=POD_NAMESPACE,
    ),
    Vendor(
        "ceph",
        "ceph/ceph-cosi v0.1.2-12, 2ae8b22",
        (FULL, FULL_LEASES, ("", "secrets events", CRUD)),
        args=("--v=5",),
    ),
    Vendor(
        "scality",
        "scality/cosi-driver 03fc87f (deployment), 30daef1 (role)",
        (FULL, FULL_LEASES, ("", "secrets events services endpoints", ALL)),
        args=("--v=2",),
    ),
    Vendor(
        "seaweedfs",
        "seaweedfs/seaweedfs 2644816 (deployment), 1dbbd3a (role)",
        (
            FULL,
            (COSI, "bucketclasses", "get list watch"),
            FULL_LEASES,
            ("", "secrets events", f"{ALL} patch"),
        ),
        args=("--v=5",),
        env=POD_NAMESPACE,
    ),
    Vendor(
        "dell",
        "dell/cosi 063d6fb (deployment), 2c23cd7 (role)",
        ((COSI, "*", "*"), (LEASES, "*", "*"), ("", "*", "*")),
    ),
    Vendor(
        "huawei",
        "Huawei/cosi 02431c1",
        (
            (COSI, f"{KINDS} bucketclasses {STATUS} {CLASS_STATUS}", f"{ALL} patch"),
            FULL_LEASES,
            ("", "secrets events", f"{CRUD} patch"),
        ),
        args=("--v=5",),
    ),
    Vendor(
        "nutanix",
        "nutanix-cloud-native/cosi-driver-nutanix 028c3ba (deployment), 192cdfa (role)",
        (FULL, FULL_LEASES, ("", "secrets events", CRUD)),
        args=("--v=5",),
        # The driver's own Secret comes with envFrom into the sidecar too.
        env=(("ENDPOINT", "https://objects.example.com"), ("ACCESS_KEY", "a"), *POD_NAMESPACE),
    ),
    Vendor(
        "vast",
        "vast-data/vast-csi 000924e (deployment), 25c02ab (role)",
        (FULL, FULL_LEASES, ("", "secrets events", f"{ALL} patch")),
        args=("--v=5",),
    ),
    Vendor(
        "cloudian",
        "cloudian/cloudian-cosi-driver c596019 (its chart binds no role: the sample's)",
        (FULL, FULL_LEASES, ("", "events secrets", CRUD)),
        args=("--debug", "-v", "100"),
        env=POD_NAMESPACE,
    ),
    Vendor(
        "linode",
        "linode/linode-cosi-driver v0.9.2-2, 4dc774f",
        (
            (COSI, f"{KINDS} {STATUS} {CLASS_STATUS}", f"{ALL} patch"),
            FULL_LEASES,
            ("", "secrets", CRUD),
            ("", "events", "create patch"),
        ),
        args=("-v=4",),
    ),
    Vendor(
        "versitygw",
        "isac322/versitygw-cosi-driver 86f86c3",
        (
            (COSI, KINDS, ALL),
            (COSI, STATUS, "get update patch"),
            FULL_LEASES,
            ("", "secrets", CRUD),
            ("", "events", "create patch"),
        ),
        args=("--driver-addr=unix:///var/lib/cosi/cosi.sock",),
    ),
    Vendor(
        "qumulo",
        "rsnedigar-cell/cosi-driver-qumulo 4f2ad4e (its Lease rights stand in a Role)",
        (
            (COSI, "buckets bucketclaims bucketaccessclasses", "get list watch update patch"),
            (COSI, "bucketclasses", "get list watch update patch"),
            (COSI, "bucketaccesses", "get list watch update patch delete"),
            (COSI, STATUS, "get update patch"),
            (LEASES, "leases", "get list watch create update patch"),
            ("", "secrets", f"{ALL} patch"),
            ("", "events", "create patch update"),
        ),
        args=("--v=4", "--driver-addr=unix:///var/lib/cosi/cosi.sock"),
    ),
    Vendor(
        "b2",
        "bo0tzz/b2-cosi-driver 9491078 (deployment), 45f7718 (role)",
        (
            (COSI, f"{KINDS} bucketclasses", "get list watch update"),
            (COSI, STATUS, "update"),
            (LEASES, "leases", "get create update"),
            ("", "events", "create patch update"),
            ("", "secrets", ALL),
        ),
    ),
    Vendor(
        "hcloud",
        "espresso-lab/hcloud-cosi-driver v0.1.10, c0f0742",
        (
            (COSI, f"{KINDS} bucketclasses", "get list watch update patch"),
            (COSI, STATUS, "get update patch"),
            (LEASES, "leases", f"{ALL} patch"),
            ("", "events", "list watch create update patch"),
            ("", "secrets", "get create update patch"),
        ),
        can_delete_secrets=False,
    ),
)


def rights(rules: Iterable[Rule]) -> dict[tuple[str, str], set[str]]:
    """The verbs for each group and resource, without those that a star gives."""
    found: dict[tuple[str, str], set[str]] = {}
    for group, resources, verbs in rules:
        for resource in resources.split():
            if resource != "*":
                found.setdefault((group, resource), set()).update(verbs.split())
    return found


def least_common() -> tuple[Rule, ...]:
    """What every role above gives that can delete a Secret and names what it gives."""
    named = [rights(vendor.rules) for vendor in VENDORS if vendor.can_delete_secrets]
    named = [one for one in named if one]
    keys = set.intersection(*(set(one) for one in named))
    common = {key: set.intersection(*(one[key] for one in named)) for key in keys}
    return tuple((*key, " ".join(sorted(common[key]))) for key in sorted(keys))


LEAST = Vendor(
    "least",
    "the rights that all of the above have in common, and flags in every other spelling",
    least_common(),
    args=(
        "-v", "5", "--alsologtostderr", "-stderrthreshold=ERROR", "--logtostderr=true",
        "--vmodule", "bucket=9", "-d", "unix:/var/lib/cosi/cosi.sock",
    ),
    env=(("V", "3"), ("DEBUG", "true"), ("UNRELATED", "x")),
)  # fmt: skip
