"""The sidecar's reconcilers: Buckets and BucketAccesses of the one driver next to it."""
