"""Build the OCI image without Docker, registry or base image. See README.md beside this file."""
