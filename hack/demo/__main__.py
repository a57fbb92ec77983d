"""Run the demo: PYTHONPATH=operator:hack python -m demo; KEEP=1 leaves it running at the end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from controlplane import ApiError, BuildError, KubectlError, StartError
from controlplane.daemon import last_lines
from demo.screen import CheckError, Screen, has_colour
from demo.setup import start
from demo.steps import STORY
from demo.world import MANIFESTS, NAMESPACE, World, log_files

LOG_LINES = 15

# What a step may end with besides success; anything else is a bug of the demo, with a traceback.
FAILURES = (
    ApiError,
    BotoCoreError,
    BuildError,
    CheckError,
    ClientError,
    KubectlError,
    OSError,
    StartError,
    subprocess.TimeoutExpired,
)


def main() -> int:
    """Run every step; return 0 only if each was checked, 1 on a failure, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it in order, as Ctrl-C does
    screen = Screen(sys.stdout, colour=has_colour(sys.stdout, os.environ))
    directory = Path(tempfile.mkdtemp(prefix="cosi-demo-"))
    try:
        passed = _run(screen, directory)
    except KeyboardInterrupt:
        screen.say("stopped")
        shutil.rmtree(directory, ignore_errors=True)
        return 130
    if passed:
        shutil.rmtree(directory, ignore_errors=True)
        return 0
    screen.say(f"Every log is kept in {directory}")
    return 1


def _run(screen: Screen, directory: Path) -> bool:
    """Run every step and end every process; return whether all was checked."""
    started = time.monotonic()
    with ExitStack() as stack:
        try:
            world = start(screen, directory, stack)
            for step in STORY:
                with screen.step(step.title):
                    step.run(world)
        except FAILURES as error:
            screen.failed(error)
            _show_logs(screen, directory)
            return False
        elapsed_s = time.monotonic() - started
        screen.done(f"All {screen.steps} steps done: {screen.checks} checks, {elapsed_s:.0f} s.")
        if os.environ.get("KEEP"):
            _keep(world)
    return True


def _show_logs(screen: Screen, directory: Path) -> None:
    for file in log_files(directory):
        screen.say("")
        screen.say(f"The last lines of {file}:")
        screen.output(last_lines(file, LOG_LINES))


def _keep(world: World) -> None:
    """Tell how to use what runs, and wait for Enter or Ctrl-C."""
    world.screen.done("It all still runs. In another terminal, in this folder:")
    world.screen.output(
        f"export KUBECONFIG={world.plane.admin_kubeconfig}\n"
        f'export PATH="{world.plane.kubectl.parent}:$PATH"\n'
        f"kubectl apply -f {MANIFESTS}/classes.yaml -f {MANIFESTS}/claim.yaml\n"
        f"kubectl apply -f {MANIFESTS}/access.yaml\n"
        f"kubectl get bucketclaims,bucketaccesses -n {NAMESPACE}"
    )
    world.screen.say(f"Logs: {world.directory}")
    try:
        if sys.stdin.isatty():
            input("   Enter or Ctrl-C ends it. ")
        else:
            signal.pause()
    except (KeyboardInterrupt, EOFError):
        world.screen.say("")


if __name__ == "__main__":
    sys.exit(main())
