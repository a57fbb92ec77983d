"""A real S3 service on loopback: SeaweedFS with its S3 and IAM APIs, for the demo and the tests.

from seaweed import SeaweedFS

with SeaweedFS.start(directory) as server:
    server.s3().create_bucket(Bucket="photos")
"""

from seaweed.server import SeaweedFS

__all__ = ["SeaweedFS"]
