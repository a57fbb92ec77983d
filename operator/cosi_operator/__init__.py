"""COSI controller and sidecar that retry only what a retry can fix."""
