"""The driver next to the sidecar: its socket, its calls, and whether it answers."""
