"""The meaning and the remedy of each reason, for docs/failures.md. Data only.

`tests/unit/test_failure_docs.py` fails when a reason of outcome.py is missing here.
"""

from collections.abc import Mapping

from cosi_operator.outcome import Reason

NOTHING = "Nothing."
SOON = "Nothing; the operator retries automatically."
DRIVER_LOG = "Read the driver's log, correct the cause, then run `cosi retry NAME`."
DRIVER_BUG = (
    "Report it to the driver's vendor; the call is retried when a new driver process starts."
)
OVERRIDE = (
    "Read the driver's log, then run `cosi retry NAME`. If this driver sends this code for"
    " temporary faults, configure retries: [policies](policies.md)."
)

REASONS: Mapping[Reason, tuple[str, str]] = {
    Reason.PROVISIONED: ("The bucket is ready.", NOTHING),
    Reason.GRANTED: ("The access is granted; its Secret holds the keys.", NOTHING),
    Reason.REVOKED: (
        "The account no longer exists on the backend, but another program's finalizer keeps the"
        " BucketAccess.",
        "If this lasts, ask your cluster administrator to have that program remove its finalizer.",
    ),
    Reason.WAITING_FOR_BUCKET: (
        "The bucket is not ready yet.",
        "If this lasts, run `cosi why NAME`, which names the cause.",
    ),
    Reason.WAITING_FOR_CLAIM: (
        "The claim is not bound yet.",
        "If this lasts, run `cosi why NAME`, which names the cause.",
    ),
    Reason.WAITING_FOR_DRIVER: (
        "The driver does not answer on its socket. Until it answers, it is not called for any"
        " object.",
        "If this lasts, check the driver's container. Everything continues automatically when the"
        " driver answers again.",
    ),
    Reason.WAITING_FOR_SIDECAR: (
        "No sidecar of the driver has reported on the object yet, so it is not granted or deleted.",
        "If this lasts, ask your cluster administrator to install or repair the driver that the"
        " message names.",
    ),
    Reason.WAITING_FOR_ACCESSES: (
        "The bucket is being deleted, and accesses to it have to be revoked first.",
        "If this lasts, run `kubectl describe bucketaccess` for the accesses that the message"
        " names.",
    ),
    Reason.WAITING_FOR_TURN: (
        "The driver is called for one BucketAccess at a time, and others come first"
        " (`--serialize-access-calls`). Or so many others of the same bucket have no account yet"
        " that its record has no room for one more.",
        SOON,
    ),
    Reason.CLASS_NOT_FOUND: (
        "spec.bucketClassName names a class that does not exist.",
        "Create that class, or delete the claim and name another class in a new one.",
    ),
    Reason.ACCESS_CLASS_NOT_FOUND: (
        "spec.bucketAccessClassName names a class that does not exist.",
        "Create that class, or name another one in a new BucketAccess.",
    ),
    Reason.CLAIM_NOT_FOUND: (
        "spec.bucketClaimName names a claim that does not exist.",
        "Create that claim, or name another one in a new BucketAccess.",
    ),
    Reason.BUCKET_NOT_FOUND: (
        "spec.existingBucketName names a Bucket that does not exist.",
        "Ask your cluster administrator to create that Bucket, or delete the claim and name another"
        " Bucket in a new one.",
    ),
    Reason.INVALID_SPEC: (
        "A field has a value that can't work; the message names the field.",
        "Correct that field, in a new object if it can't be changed.",
    ),
    Reason.INVALID_OBJECT: (
        "The object can't be decoded, because it does not conform to the schema.",
        "Correct or delete the object; other objects are not affected.",
    ),
    Reason.RELEASED: (
        "The claim of a Bucket no longer exists, and the Bucket and its data are kept: a static"
        " Bucket was released, or a claim was removed by force.",
        "Ask your cluster administrator to run the command in the message, so that another claim"
        " can use the bucket, or to delete the Bucket.",
    ),
    Reason.BUCKET_ALREADY_BOUND: (
        "The Bucket belongs to another claim.",
        "Name another Bucket in a new claim, or ask your cluster administrator to clear"
        " spec.bucketClaim of that Bucket.",
    ),
    Reason.BUCKET_LOST: (
        "The claim's Bucket object was removed; its data may be lost.",
        "Delete the claim, and create a new one for a new bucket.",
    ),
    Reason.ACCOUNT_CONTESTED: (
        "Two BucketAccesses that were granted before the Bucket had a record name the same account"
        " in their status. Nothing is granted or revoked for either.",
        "Ask your cluster administrator to compare status.accountID of the BucketAccesses and to"
        " delete the wrong BucketAccess.",
    ),
    Reason.BUCKET_IN_USE: (
        "The Bucket object is being deleted, but its BucketClaim still exists. The bucket and its"
        " data stay until the claim is deleted.",
        "Delete the BucketClaim. To delete the bucket and its data now, ask your cluster"
        " administrator to run the command in the message.",
    ),
    Reason.FORMER_BUCKET: (
        "A Bucket names an earlier BucketClaim of the same namespace and name, which no longer"
        " exists. The Bucket may hold that claim's data, so no new bucket was created.",
        "For the old data, ask your cluster administrator to bind the Bucket as the message says."
        " For a new, empty bucket, set the annotation that the message names.",
    ),
    Reason.RECORD_FULL: (
        "The record of the Bucket has no room for one more BucketAccess, so no access was granted.",
        "Delete a BucketAccess of this bucket that is not needed.",
    ),
    Reason.INVALID_CLASS: (
        "The BucketClass has a deletionPolicy that is neither `Delete` nor `Retain`.",
        "Ask your cluster administrator to correct deletionPolicy of the BucketClass.",
    ),
    Reason.BEING_DELETED: (
        "The claim, Bucket or class that the object names is being deleted.",
        "Wait until it is deleted, then create it and this object again.",
    ),
    Reason.DRIVER_MISMATCH: (
        "The access class and the bucket belong to different drivers.",
        "Use a BucketAccessClass of the bucket's driver in a new BucketAccess.",
    ),
    Reason.SECRET_NOT_OWNED: (
        "A Secret of that name exists and was not created for this access. It is not changed.",
        "Delete that Secret, or use another name in a new BucketAccess.",
    ),
    Reason.SECRET_REFUSED: (
        "The API server refused to store the Secret (quota, admission, rights). No access was"
        " granted.",
        "Correct the cause that the message names. The operator tries again every 30 s.",
    ),
    Reason.BACKEND_UNVERIFIED: (
        "The object was deleted or restored, and the backend may still hold a bucket or an account"
        " of it; the message says why. This is also the reason of the Warning Event.",
        "Ask your cluster administrator to look on the backend for the name in the message.",
    ),
    Reason.DRIVER_UNREACHABLE: (
        "The connection ended before the driver answered, because the driver was killed or"
        " restarted.",
        SOON,
    ),
    Reason.DRIVER_DEADLINE: (
        "The driver did not answer within `--driver-call-timeout` (60 s).",
        "Nothing at first, because the call is retried. If this lasts, check the driver and its"
        " backend.",
    ),
    Reason.DRIVER_MALFORMED_REPLY: (
        "The driver answered OK with a reply that can't be read: too large, or another message.",
        DRIVER_BUG,
    ),
    Reason.EMPTY_BUCKET_ID: ("The driver answered OK without an id of the bucket.", DRIVER_BUG),
    Reason.FOREIGN_BUCKET_ID: (
        "The driver returned a bucket_id that another Bucket already has. The id was not stored,"
        " so neither Bucket can delete the data of the other.",
        "Report it to the driver's authors. If the other Bucket is a static Bucket with this"
        " existingBucketID, use that Bucket, or ask your cluster administrator to remove it.",
    ),
    Reason.EMPTY_ACCOUNT_ID: ("The driver answered OK without an id of the account.", DRIVER_BUG),
    Reason.NO_CREDENTIALS: (
        "The account exists, and the driver sent no keys for it, or only a part of them.",
        "Run `cosi retry bucketaccess/NAME`. If the reason stays, delete the access and create it"
        " again.",
    ),
    Reason.DRIVER_CANCELLED: ("The driver cancelled the call itself.", OVERRIDE),
    Reason.DRIVER_UNKNOWN: ("The driver failed and sent no specific code.", OVERRIDE),
    Reason.DRIVER_INVALID_ARGUMENT: (
        "The driver refuses the request itself: a name or a parameter.",
        "Correct the parameters of the class; the call is then retried automatically.",
    ),
    Reason.DRIVER_SENT_DEADLINE: ("The driver's own time limit passed.", OVERRIDE),
    Reason.DRIVER_NOT_FOUND: (
        "Something that the call needs does not exist on the backend.",
        "Create it on the backend, or correct the name in the class; then run `cosi retry NAME`.",
    ),
    Reason.DRIVER_ALREADY_EXISTS: (
        "The driver answered a deletion with ALREADY_EXISTS.",
        DRIVER_LOG,
    ),
    Reason.DRIVER_PERMISSION_DENIED: (
        "The driver's own account on the backend lacks a right.",
        "Grant the right that the message names to that account, then run `cosi retry NAME`.",
    ),
    Reason.DRIVER_RESOURCE_EXHAUSTED: (
        "A quota on the backend is used up.",
        "Raise the quota or free some of it, then run `cosi retry NAME`.",
    ),
    Reason.DRIVER_FAILED_PRECONDITION: (
        "The state of the backend does not allow the call. At a deletion, the bucket is not empty.",
        "Correct the cause that the message names. A deletion is retried every 10 minutes. For"
        " other calls, run `cosi retry NAME`.",
    ),
    Reason.DRIVER_ABORTED: ("Another operation on the backend conflicted with the call.", OVERRIDE),
    Reason.DRIVER_OUT_OF_RANGE: (
        "A value is outside the range that the backend supports.",
        "Correct the parameters of the class; the call is then retried automatically.",
    ),
    Reason.DRIVER_UNIMPLEMENTED: (
        "The driver does not implement the request.",
        "Use a class that it supports, or a newer driver.",
    ),
    Reason.DRIVER_INTERNAL: (
        "The driver failed, most often because its backend is down. The call is retried, at most"
        " every 5 minutes.",
        "Nothing, if the backend recovers. If this lasts, read the driver's log.",
    ),
    Reason.DRIVER_UNAVAILABLE: ("The driver answered that it can't serve now.", OVERRIDE),
    Reason.DRIVER_DATA_LOSS: ("The backend has permanently lost or damaged data.", DRIVER_LOG),
    Reason.DRIVER_UNAUTHENTICATED: (
        "The backend does not accept the credentials that the driver itself uses.",
        "Replace them; when the driver restarts with new credentials, all calls are retried"
        " automatically.",
    ),
    Reason.CONFLICT: ("Another writer changed the object at the same time.", SOON),
    Reason.API_UNAVAILABLE: (
        "Requests for this object have failed for longer than 10 s; the message quotes the last"
        " error. They are repeated every 30 s or earlier.",
        "If this lasts, ask your cluster administrator to look for the cause in the API server, for"
        " example an admission webhook that does not answer.",
    ),
    Reason.API_REFUSED: (
        "Admission, quota or validation refused a write; the message quotes the API server. The"
        " write is repeated every 30 s.",
        "Ask your cluster administrator to correct what the message names.",
    ),
    Reason.MISSING_PERMISSION: (
        "The operator's role lacks a right; the message names verb, resource and role. The request"
        " is repeated every 30 s.",
        "Ask your cluster administrator to grant it. `deploy/rbac` has all rules.",
    ),
    Reason.STEP_LIMIT: (
        "A run did not end within its limit of steps. The run is repeated.",
        "Report it.",
    ),
    Reason.INTERNAL_ERROR: (
        "An unexpected error in the operator; its log names the place. The run is repeated.",
        "Report it.",
    ),
}
