"""Coverage measures the first examples of a long search only.

Measured code takes twice as long, and later examples of one search run lines that earlier ones have
run. What the test checks is the same in every example.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import coverage
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

MEASURED_EXAMPLES = 40


@contextmanager
def unmeasured() -> Iterator[None]:
    """Pause the coverage of this process, if it is measured."""
    if (measuring := coverage.Coverage.current()) is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


@contextmanager
def measured_in_part(examples: int = MEASURED_EXAMPLES) -> Iterator[Callable[[], None]]:
    """Give a function to call before each example; coverage pauses after the first `examples`."""
    begun = 0
    with ExitStack() as pause:

        def begin() -> None:
            nonlocal begun
            if begun == examples:
                pause.enter_context(unmeasured())
            begun += 1

        yield begin


def search(machine: type[RuleBasedStateMachine], profile: settings) -> None:
    """Run a state machine as a test, measured in part."""
    with measured_in_part() as begin:

        def example() -> RuleBasedStateMachine:
            begin()
            return machine()

        run_state_machine_as_test(example, settings=profile)  # type: ignore[arg-type]
