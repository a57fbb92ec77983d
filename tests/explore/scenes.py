"""The scenes that are explored, and how far."""

from tests.explore.machine import Scene

SCENES = (
    Scene("nothing is done yet", ready=False),
    Scene("two accesses", accesses=2),
    Scene("no access yet", accesses=0),
    Scene("a static Bucket", claim="old"),
    Scene("a retained Bucket", claim="silver"),
    Scene("a driver that mints accounts", accounts="one each time"),
    Scene("one account for a bucket", accounts="one for a bucket", accesses=2),
    Scene("a driver without a lock", accesses=2, locks=False),
    Scene("finalizers are stripped", destroyer="strips finalizers"),
    Scene("records are removed", destroyer="replaces Buckets"),
    Scene("older records are put back", destroyer="puts back older records"),
    Scene("older Buckets are applied", destroyer="applies older Buckets"),
    Scene("Buckets are removed by force", destroyer="removes Buckets"),
    Scene("a Go sidecar of another driver", destroyer="Go sidecar of another driver"),
    Scene("the CRDs of upstream", upstream=True),
)
