"""Run a process of the operator with a shorter Lease: argv is SCALE ROLE FLAGS.

A SCALE of 10 stands for time that passes ten times as fast: a Lease of 1.5 s, renewed every 0.2 s
and given up after 1.0 s, instead of 15 s, 2 s and 10 s.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from unittest.mock import patch

from cosi_operator import app
from cosi_operator.flags import (
    ParsedController,
    ParsedSidecar,
    parse_controller,
    parse_sidecar,
)
from cosi_operator.settings import LeaseDurations


def main(scale: float, role: str, flags: Sequence[str]) -> int:
    usual = LeaseDurations()
    lease = LeaseDurations(
        usual.lease_s / scale, usual.renew_deadline_s / scale, usual.retry_period_s / scale
    )

    def controller(argv: Sequence[str], environ: Mapping[str, str]) -> ParsedController:
        parsed = parse_controller(argv, environ)
        return replace(parsed, settings=replace(parsed.settings, lease=lease))

    def sidecar(argv: Sequence[str], environ: Mapping[str, str]) -> ParsedSidecar:
        parsed = parse_sidecar(argv, environ)
        return replace(parsed, settings=replace(parsed.settings, lease=lease))

    with patch.multiple(app, parse_controller=controller, parse_sidecar=sidecar):
        return {"controller": app.controller, "sidecar": app.sidecar}[role](flags)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
