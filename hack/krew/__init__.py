"""Builds the archive and the manifest of the plugin `cosi` for krew."""
