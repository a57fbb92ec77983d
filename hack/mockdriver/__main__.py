"""Run the mock driver: `python -m mockdriver --socket PATH --control PATH`."""

import argparse
import signal
from pathlib import Path

import anyio
import grpc
import msgspec

from mockdriver.backend import Backend
from mockdriver.control import Control
from mockdriver.journal import Journal
from mockdriver.rules import Rule, RuleBook
from mockdriver.service import Edits, Service

DEFAULT_NAME = "mock.objectstorage.k8s.io"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mockdriver", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where to serve COSI")
    parser.add_argument("--control", type=Path, required=True, help="where to take commands")
    parser.add_argument("--name", default=DEFAULT_NAME, help="the driver's name (%(default)s)")
    parser.add_argument("--rules", type=Path, help="JSON file: a list of rules to start with")
    parser.add_argument("--state", type=Path, help="keep buckets and accounts in this file")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    rules = RuleBook()
    if arguments.rules is not None:
        for rule in msgspec.json.decode(arguments.rules.read_bytes(), type=list[Rule]):
            rules.add(rule)
    backend, journal, edits = Backend(arguments.state), Journal(), Edits()
    control = Control(backend, rules, journal, edits)
    server = grpc.aio.server()
    Service(arguments.name, backend, rules, journal, edits).register(server)
    server.add_insecure_port(f"unix:{arguments.socket.absolute()}")
    async with anyio.create_task_group() as tasks:
        await tasks.start(control.serve, arguments.control)
        await server.start()
        tasks.start_soon(_stop_on_signal, control)
        print("ready", flush=True)
        await control.stopped.wait()
        await server.stop(grace=None)
        tasks.cancel_scope.cancel()


async def _stop_on_signal(control: Control) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            control.stopped.set()


anyio.run(_serve, _arguments())
