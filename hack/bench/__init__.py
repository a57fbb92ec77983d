"""The benchmark: one control plane, one driver, a pair of controller and sidecar, and a load.

`python -m bench` runs it (`make bench`), `docs/performance.md` explains and shows the results.
Nothing here decides whether a number is good; the guard in CI is tests/integration/test_budget.py,
which counts instead of timing.
"""
