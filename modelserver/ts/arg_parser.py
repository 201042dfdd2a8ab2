"""The flags of the server's command and of a worker that is run by hand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


class ArgParser:
    """Parsers under the names that other code imports."""

    @staticmethod
    def ts_parser() -> argparse.ArgumentParser:
        """The parser of the `torchserve` command."""
        from modelserver.settings.command_line import parser  # nobody but its users needs the server

        return parser()

    @staticmethod
    def model_service_worker_args() -> argparse.ArgumentParser:
        """The parser of `ts/model_service_worker.py`."""
        parser = argparse.ArgumentParser(prog="model-server-worker", description="Model Server Worker")
        parser.add_argument("--sock-type", required=True, choices=["unix", "tcp"], help="kind of socket to listen on")
        parser.add_argument("--sock-name", help="path of a unix socket")
        parser.add_argument("--host", help="address of a tcp socket")
        parser.add_argument("--port", help="port of a tcp socket")
        parser.add_argument("--metrics-config", help="file of metric definitions")
        parser.add_argument("--async", dest="async_comm", action="store_true", help="the handler is a coroutine")
        return parser

    @staticmethod
    def extract_args(args: Sequence[str] | None = None) -> argparse.Namespace:
        """The flags of the `torchserve` command, by default those of this process."""
        return ArgParser.ts_parser().parse_args(args)
