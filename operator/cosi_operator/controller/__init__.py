"""The controller's reconcilers: BucketClaims, and accesses whose class does not exist."""
