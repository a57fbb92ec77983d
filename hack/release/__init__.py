"""Cut, build, sign and publish a release. docs/release.md says how."""
