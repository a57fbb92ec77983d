"""The controller's reconcilers: BucketClaims, and BucketAccesses that no sidecar reports on."""
