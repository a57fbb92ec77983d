"""Reads and writes the objects of a control plane, as its administrator."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus

from controlplane import ApiError, ControlPlane
from testbed.bulk import send_all
from testbed.objects import NAMESPACE, Json, access_body, claim_body, path_of, typed

DRIVER_NAME = "mock.objectstorage.k8s.io"


class ClusterObjects:
    """The objects of one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def make_namespace(self, name: str) -> str:
        """Make a namespace; nothing collects it again."""
        self.plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def make_classes(
        self,
        name: str,
        *,
        driver: str = DRIVER_NAME,
        policy: str = "Delete",
        parameters: Mapping[str, str] | None = None,
        authentication: str = "Key",
    ) -> None:
        """Make a BucketClass and a BucketAccessClass of the same name and parameters."""
        common = {"metadata": {"name": name}, "driverName": driver, "parameters": parameters or {}}
        self.create("bucketclasses", {**common, "deletionPolicy": policy})
        self.create("bucketaccessclasses", {**common, "authenticationType": authentication})

    def make_claims(
        self, names: Iterable[str], *, class_name: str, namespace: str = NAMESPACE
    ) -> None:
        """Make BucketClaims, many at once."""
        self.create_all(
            "bucketclaims",
            [claim_body(name, class_name=class_name, namespace=namespace) for name in names],
            namespace,
        )

    def make_accesses(
        self, claims: Iterable[str], *, class_name: str, namespace: str = NAMESPACE
    ) -> None:
        """Make a BucketAccess for each claim, with the claim's name and the Secret NAME-keys."""
        self.create_all(
            "bucketaccesses",
            [access_body(name, class_name=class_name, namespace=namespace) for name in claims],
            namespace,
        )

    def create(self, plural: str, body: Json, namespace: str = NAMESPACE) -> Json:
        """Create one object as the administrator; apiVersion and kind may be left out."""
        created: Json = self.plane.api.call("POST", path_of(plural, namespace), typed(plural, body))
        return created

    def create_all(self, plural: str, bodies: Sequence[Json], namespace: str = NAMESPACE) -> None:
        """Create many at once, over 20 connections."""
        path = path_of(plural, namespace)
        send_all(self.plane, [("POST", path, typed(plural, body)) for body in bodies])

    def get(self, plural: str, name: str, namespace: str = NAMESPACE) -> Json:
        """One object as it stands; ApiError with code 404 when there is none."""
        found: Json = self.plane.api.call("GET", path_of(plural, namespace, name))
        return found

    def find(self, plural: str, name: str, namespace: str = NAMESPACE) -> Json | None:
        """One object, or None."""
        try:
            return self.get(plural, name, namespace)
        except ApiError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def all_of(self, plural: str, namespace: str = NAMESPACE) -> list[Json]:
        """All objects of a kind (in a namespace, if it has them)."""
        items: list[Json] = self.plane.api.call("GET", path_of(plural, namespace))["items"]
        return items

    def edit(
        self, plural: str, name: str, change: Callable[[Json], object], namespace: str = NAMESPACE
    ) -> Json:
        """Apply a change to an object, as a person does with kubectl edit."""
        while True:
            body = self.get(plural, name, namespace)
            change(body)
            try:
                written: Json = self.plane.api.call("PUT", path_of(plural, namespace, name), body)
            except ApiError as error:
                if error.reason != "Conflict":
                    raise
                continue
            return written

    def annotate(self, plural: str, name: str, namespace: str = NAMESPACE, **values: str) -> None:
        """Set annotations; `retry` stands for objectstorage.k8s.io/retry."""
        named = {f"objectstorage.k8s.io/{key}": value for key, value in values.items()}

        def change(body: Json) -> None:
            body["metadata"].setdefault("annotations", {}).update(named)

        self.edit(plural, name, change, namespace)

    def delete(self, plural: str, name: str, namespace: str = NAMESPACE) -> None:
        """Ask for the deletion of one object."""
        self.plane.api.call("DELETE", path_of(plural, namespace, name))

    def delete_all(self, plural: str, names: Iterable[str], namespace: str = NAMESPACE) -> None:
        """Ask for the deletion of many, over 20 connections."""
        send_all(self.plane, [("DELETE", path_of(plural, namespace, n), None) for n in names])

    def bucket_of(self, claim: str, namespace: str = NAMESPACE) -> Json:
        """The Bucket that was made for a claim."""
        uid = self.get("bucketclaims", claim, namespace)["metadata"]["uid"]
        return self.get("buckets", f"bucket-{uid}")

    def events(self, name: str, namespace: str = NAMESPACE) -> list[Json]:
        """The Events about objects of this name, oldest first."""
        found = [
            event
            for event in self.all_of("events", namespace)
            if event["involvedObject"]["name"] == name
        ]
        return sorted(found, key=lambda event: str(event["firstTimestamp"]))
