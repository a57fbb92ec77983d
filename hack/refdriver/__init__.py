"""The reference driver: COSI v1alpha1 calls, answered with real buckets, users and keys.

It provisions on any service that has S3 and an IAM API in one place; the demo and the tests use
SeaweedFS. As a program it is `python -m refdriver --socket PATH --endpoint URL --region NAME`.
From Python:

    from refdriver import RefDriver

    with RefDriver.start(directory, server.account) as driver:
        ...  # driver.address for --driver-addr; driver.calls() is what it was asked
"""

from refdriver.process import RefDriver
from refdriver.record import CallRecord

__all__ = ["CallRecord", "RefDriver"]
