"""What each reason means and what helps, for docs/failures.md. Data alone.

`tests/unit/test_failure_docs.py` fails when a reason of outcome.py is missing here.
"""

from collections.abc import Mapping

from cosi_operator.outcome import Reason

NOTHING = "Nothing."
SOON = "Nothing; the operator retries automatically."
DRIVER_LOG = "Look at the driver's log, repair what it names, then `cosi retry NAME`."
DRIVER_BUG = (
    "Report it to the driver's vendor; the call is retried when a new driver process starts."
)
OVERRIDE = (
    "Look at the driver's log, then `cosi retry NAME`. If this driver sends it for faults that"
    " pass, make it retry: [policies](policies.md)."
)

REASONS: Mapping[Reason, tuple[str, str]] = {
    Reason.PROVISIONED: ("The bucket is ready.", NOTHING),
    Reason.GRANTED: ("The access is granted; its Secret holds the keys.", NOTHING),
    Reason.REVOKED: (
        "The account is gone from the backend, but a finalizer of others keeps the BucketAccess.",
        "If it lasts: whoever set that finalizer has to remove it.",
    ),
    Reason.WAITING_FOR_BUCKET: (
        "The bucket is not ready yet.",
        "If it lasts: `cosi why NAME` names what holds it up.",
    ),
    Reason.WAITING_FOR_CLAIM: ("The claim is not bound yet.", "If it lasts: `cosi why NAME`."),
    Reason.WAITING_FOR_DRIVER: (
        "The driver does not answer on its socket. No object of it is tried meanwhile.",
        "If it lasts, check the driver's container. Everything continues automatically when the"
        " driver answers again.",
    ),
    Reason.WAITING_FOR_SIDECAR: (
        "No sidecar of the driver has reported on the object yet, so it is not granted or deleted.",
        "If it lasts: an administrator installs or repairs the driver that the message names.",
    ),
    Reason.WAITING_FOR_ACCESSES: (
        "The bucket is being deleted, and accesses to it have to be revoked first.",
        "If it lasts: `kubectl describe bucketaccess` of those that the message names.",
    ),
    Reason.WAITING_FOR_TURN: (
        "The driver is called for one BucketAccess at a time, and others come first"
        " (`--serialize-access-calls`). Or so many others of the same bucket have no account yet"
        " that its record has no room for one more.",
        SOON,
    ),
    Reason.CLASS_NOT_FOUND: (
        "spec.bucketClassName names a class that is not there.",
        "Create that class, or delete the claim and name another one.",
    ),
    Reason.ACCESS_CLASS_NOT_FOUND: (
        "spec.bucketAccessClassName names a class that is not there.",
        "Create that class, or name another one in a new BucketAccess.",
    ),
    Reason.CLAIM_NOT_FOUND: (
        "spec.bucketClaimName names a claim that is not there.",
        "Create that claim, or name another one in a new BucketAccess.",
    ),
    Reason.BUCKET_NOT_FOUND: (
        "spec.existingBucketName names a Bucket that is not there.",
        "Have an administrator create it, or delete the claim and name another one.",
    ),
    Reason.INVALID_SPEC: (
        "A field has a value that can't work; the message names the field.",
        "Correct that field, in a new object if it can't be changed.",
    ),
    Reason.INVALID_OBJECT: (
        "The object can't be read; something wrote it past the schema.",
        "Repair or delete it; the others go on.",
    ),
    Reason.RELEASED: (
        "The claim of a Bucket no longer exists, and the Bucket and its data are kept: a static"
        " Bucket was released, or a claim was removed by force.",
        "An administrator runs the command of the message to let another claim use it, or deletes"
        " the Bucket.",
    ),
    Reason.BUCKET_ALREADY_BOUND: (
        "The Bucket belongs to another claim.",
        "Name another Bucket, or have an administrator clear spec.bucketClaim of that one.",
    ),
    Reason.BUCKET_LOST: (
        "The claim's Bucket object was removed; its data may be gone.",
        "Delete the claim, and create a new one for a new bucket.",
    ),
    Reason.ACCOUNT_CONTESTED: (
        "Two BucketAccesses that were granted before the Bucket had a record name the same account"
        " in their status. Nothing is granted or revoked for either.",
        "An administrator compares status.accountID of the BucketAccesses and deletes the one that"
        " is wrong.",
    ),
    Reason.BUCKET_IN_USE: (
        "The Bucket object is being deleted, but its BucketClaim still exists. The bucket and its"
        " data stay until the claim is deleted.",
        "Delete the BucketClaim. To delete the bucket and its data now, an administrator runs the"
        " command in the message.",
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
        "What the object names is being deleted.",
        "Wait until it is gone, then create it and this object again.",
    ),
    Reason.DRIVER_MISMATCH: (
        "The access class and the bucket belong to different drivers.",
        "Use a BucketAccessClass of the bucket's driver in a new BucketAccess.",
    ),
    Reason.SECRET_NOT_OWNED: (
        "A Secret of that name exists and was not made for this access. It is not touched.",
        "Delete that Secret, or use another name in a new BucketAccess.",
    ),
    Reason.SECRET_REFUSED: (
        "The API server would not store the Secret (quota, admission, rights). No access was"
        " granted.",
        "Repair what the message names; it is looked at again every 30 s.",
    ),
    Reason.BACKEND_UNVERIFIED: (
        "The object was deleted or restored, and the backend may still hold a bucket or an account"
        " of it; the message says why. This is also the reason of the Warning Event.",
        "Ask your cluster administrator to look on the backend for the name in the message.",
    ),
    Reason.DRIVER_UNREACHABLE: (
        "The connection ended before the driver answered: it was killed or restarted.",
        SOON,
    ),
    Reason.DRIVER_DEADLINE: (
        "The driver did not answer within `--driver-call-timeout` (60 s).",
        "Nothing at first; it is tried again. If it lasts: look at the driver and its backend.",
    ),
    Reason.DRIVER_MALFORMED_REPLY: (
        "The driver said OK with a reply that can't be read: too large, or no such message.",
        DRIVER_BUG,
    ),
    Reason.EMPTY_BUCKET_ID: ("The driver said OK and gave the bucket no id.", DRIVER_BUG),
    Reason.FOREIGN_BUCKET_ID: (
        "The driver returned a bucket_id that another Bucket already has. The id was not stored,"
        " so neither Bucket can delete the data of the other.",
        "Report it to the driver's authors. If the other Bucket is a static Bucket with this"
        " existingBucketID, use that Bucket, or ask your cluster administrator to remove it.",
    ),
    Reason.EMPTY_ACCOUNT_ID: ("The driver said OK and gave the account no id.", DRIVER_BUG),
    Reason.NO_CREDENTIALS: (
        "The account exists, and the driver sent no keys for it, or only a part of them.",
        "`cosi retry bucketaccess/NAME`. If that does not help: delete the access and create it"
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
        "Something that the call needs is not on the backend.",
        "Make it there, or repair the name in the class; then `cosi retry NAME`.",
    ),
    Reason.DRIVER_ALREADY_EXISTS: (
        "The driver says at a deletion that something exists already.",
        DRIVER_LOG,
    ),
    Reason.DRIVER_PERMISSION_DENIED: (
        "The driver's own account on the backend lacks a right.",
        "Give it the right that the message names, then `cosi retry NAME`.",
    ),
    Reason.DRIVER_RESOURCE_EXHAUSTED: (
        "A quota on the backend is used up.",
        "Raise it or free something, then `cosi retry NAME`.",
    ),
    Reason.DRIVER_FAILED_PRECONDITION: (
        "The backend has to change first; at a deletion: the bucket is not empty.",
        "Change what the message names. A deletion is looked at again every 10 minutes; else"
        " `cosi retry NAME`.",
    ),
    Reason.DRIVER_ABORTED: ("Another operation on the backend was in the way.", OVERRIDE),
    Reason.DRIVER_OUT_OF_RANGE: (
        "A value is outside what the backend can do.",
        "Correct the parameters of the class; the call is then retried automatically.",
    ),
    Reason.DRIVER_UNIMPLEMENTED: (
        "This driver can't do what was asked.",
        "Use a class that it supports, or a newer driver.",
    ),
    Reason.DRIVER_INTERNAL: (
        "The driver failed, most often since its backend is down. It is tried again, at most every"
        " 5 minutes.",
        "Nothing, if the backend comes back. If it lasts: look at the driver's log.",
    ),
    Reason.DRIVER_UNAVAILABLE: ("The driver answered that it can't serve now.", OVERRIDE),
    Reason.DRIVER_DATA_LOSS: ("Something is broken on the backend for good.", DRIVER_LOG),
    Reason.DRIVER_UNAUTHENTICATED: (
        "The backend does not accept the credentials that the driver itself uses.",
        "Replace them; when the driver restarts with new credentials, all calls are retried"
        " automatically.",
    ),
    Reason.CONFLICT: ("Someone else wrote the object at the same moment.", SOON),
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
    Reason.STEP_LIMIT: ("A run did not come to an end; it is begun again.", "Report it."),
    Reason.INTERNAL_ERROR: (
        "A fault in the operator; its log names the place. It is tried again.",
        "Report it.",
    ),
}
