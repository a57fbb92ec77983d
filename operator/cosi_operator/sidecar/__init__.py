"""The sidecar's reconcilers, for the Buckets and BucketAccesses of its driver."""
