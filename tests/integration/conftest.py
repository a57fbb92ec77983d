"""The testbed that the integration tests of a module share; each has names of its own in it."""

from tests.support.shared_bed import bed as bed
from tests.support.shared_bed import name as name
from tests.support.shared_bed import shared_bed as shared_bed
