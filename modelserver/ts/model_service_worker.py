"""A worker of the classic protocol, to be run by hand and connected to; the server's own workers are others."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any

from ts.arg_parser import ArgParser
from ts.async_service import AsyncService
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
from ts.protocol.codec import LOAD_MSG, PREDICT_MSG, create_load_model_response, retrieve_msg
from ts.service import Service

CONNECTION_WAIT = 30  # seconds for the frontend to connect

logger = logging.getLogger(__name__)


class TorchModelServiceWorker:
    """Listens for one frontend and serves the model that it names. Raises `ValueError` for a socket without place."""

    def __init__(
        self,
        s_type: str | None = None,
        s_name: str | None = None,
        host_addr: str | None = None,
        port_num: int | str | None = None,
        metrics_config: str | None = None,
        async_comm: bool | None = False,
    ) -> None:
        if s_type not in ("unix", "tcp"):
            raise ValueError("Incomplete data provided")
        if s_type == "unix" and s_name is None:
            raise ValueError("Wrong arguments passed. No socket name given.")
        if s_type == "tcp" and port_num is None:
            raise ValueError("Wrong arguments passed. No socket port given.")
        self.sock_type = s_type
        self.port = _of_rank(port_num) if s_type == "tcp" else -1
        self.sock_name = _path_of_rank(s_name or "") if s_type == "unix" else host_addr or "127.0.0.1"
        self.async_comm = bool(async_comm)
        self.metrics_cache = MetricsCacheYamlImpl(metrics_config or "")
        self.metrics_cache.initialize_cache()
        if s_type == "unix":
            _remove(self.sock_name)
        self.sock = socket.socket(socket.AF_UNIX if s_type == "unix" else socket.AF_INET)

    def load_model(self, load_model_request: dict[str, Any]) -> tuple[Service | None, str, int]:
        """Service, message and code; no service where there is too little memory or torch gives up."""
        request = load_model_request
        name = request["modelName"].decode()
        try:
            service = ModelLoaderFactory.get_model_loader().load(
                name,
                request["modelPath"].decode(),
                request["handler"].decode(),
                request.get("gpu"),
                int(request["batchSize"]),
                request.get("envelope", b"").decode(),
                request.get("limitMaxImagePixels", True),
                self.metrics_cache,
            )
        except MemoryError as error:
            logger.error("Load model %s cpu OOM, exception %s", name, error)
            return None, "System out of memory", 507
        except RuntimeError as error:
            if "CUDA" in str(error):
                logger.error("Load model %s cuda OOM, exception %s", name, error)
                return None, "System out of memory", 507
            logger.error("Failed to load model %s, exception %s", name, error)
            return None, "Unknown exception", 500
        return service, f"loaded model {name}", 200

    def handle_connection(self, cl_socket: Any) -> None:
        """Answer messages until the frontend is gone: then `SystemExit` passes.

        Raises `RuntimeError` for requests before the model and for a model that cannot be loaded, `ValueError` for an
        unknown command.
        """
        service: Service | None = None
        while True:
            command, message = retrieve_msg(cl_socket)
            if command == LOAD_MSG:
                service = self._load(cl_socket, message)
            elif command != PREDICT_MSG:
                raise ValueError(f"Received unknown command: {command!r}")
            elif service is None:
                raise RuntimeError(f"Received command: {command!r}, but service is not loaded")
            else:
                response = service.predict(message)
                if response is not None:
                    cl_socket.sendall(response)

    def handle_connection_async(self, cl_socket: Any) -> None:
        """As `handle_connection`, for a handler that is a coroutine."""
        asyncio.set_event_loop(asyncio.new_event_loop())  # before `initialize`, which may keep it
        command, message = retrieve_msg(cl_socket)
        if command != LOAD_MSG:
            raise RuntimeError(f"Received command: {command!r}, but service is not loaded")
        AsyncService(self._load(cl_socket, message)).run()

    def run_server(self) -> None:
        """Listen, wait for the frontend and serve it. Exits with status 1 if it does not come."""
        self.sock.settimeout(CONNECTION_WAIT)
        self.sock.bind(self.sock_name if self.sock_type == "unix" else (self.sock_name, self.port))
        self.sock.listen(1)
        place = self.sock_name if self.sock_type == "unix" else f"{self.sock_name}:{self.port}"
        for line in (f"Listening on port: {place}", f"[PID]{os.getpid()}", "Torch worker started."):
            logger.info(line)
        logger.info("Python runtime: %s", platform.python_version())
        try:
            connection, _ = self.sock.accept()
        except TimeoutError:
            logger.error("Backend worker did not receive connection in: %d", CONNECTION_WAIT)
            sys.exit(1)
        connection.setblocking(True)
        logger.info("Connection accepted: %s.", place)
        (self.handle_connection_async if self.async_comm else self.handle_connection)(connection)

    def _load(self, cl_socket: Any, message: dict[str, Any]) -> Service:
        service, text, code = self.load_model(message)
        if service is not None:
            service.set_cl_socket(cl_socket)
        cl_socket.sendall(create_load_model_response(code, text))
        if service is None:
            raise RuntimeError(f"{code} - {text}")
        return service


def main() -> None:
    """Run a worker as its flags say."""
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]  # put there for a script
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    arguments = ArgParser.model_service_worker_args().parse_args()
    worker = None
    try:
        worker = TorchModelServiceWorker(
            arguments.sock_type,
            arguments.sock_name,
            arguments.host,
            arguments.port,
            arguments.metrics_config,
            arguments.async_comm,
        )
        worker.run_server()
    except Exception:
        logger.exception("Backend worker process died.")
        sys.exit(1)
    finally:
        if worker is not None and worker.sock_type == "unix":
            Path(worker.sock_name).unlink(missing_ok=True)


def _of_rank(port: int | str | None) -> int:
    """Each rank of a launched worker listens on its own port."""
    return int(port or 0) + int(os.environ.get("LOCAL_RANK", "0"))


def _path_of_rank(path: str) -> str:
    """`<path>.<number>`, the number raised by the rank; any other path as it is."""
    stem, dot, number = path.rpartition(".")
    return f"{stem}.{_of_rank(number)}" if dot and number.isdecimal() else path


def _remove(path: str) -> None:
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise RuntimeError(f"socket already in use: {path}.") from error


if __name__ == "__main__":
    main()
