"""Access to the API server: requests, list-watch, the store, the lease and Events."""
