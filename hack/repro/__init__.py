"""Reproduces the endless retry that docs/rfc-retry-only-internal.md is about."""
