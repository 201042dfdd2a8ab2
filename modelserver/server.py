"""Start, run, drain, stop: the one place that owns signals, sockets, engine and nursery, and joins the rooms."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import uvicorn
import uvloop

from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import ConfigurationError, ServerError
from modelserver.pool.devices import count_gpus
from modelserver.pool.nursery import Nursery
from modelserver.pool.pool import Pool
from modelserver.rest.apps import Connector, connectors
from modelserver.rest.authorization import Authorization
from modelserver.rest.key_file import KeyFile
from modelserver.rest.protocol import ProtocolOptions, protocol_class
from modelserver.settings.addresses import Address
from modelserver.settings.banner import banner
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.startup import InitialModel, initial_models
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_settings
from modelserver.settings.version import version
from modelserver.telemetry.telemetry import Telemetry

STARTED: Final = "Model server started."
BACKLOG: Final = 2048  # connections the kernel holds before we accept them


class Listener:
    """One bound REST address and the protocol server behind it."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.socket = _bind(connector.address)
        self.address = _bound(connector.address, self.socket)
        self._server: uvicorn.Server | None = None

    async def listen(self, options: ProtocolOptions) -> None:
        """Begin to accept."""
        config = uvicorn.Config(
            self.connector.app,
            interface="asgi3",  # taken as it is: our protocol calls it with an exchange
            http=protocol_class(options),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
        )
        config.load()
        # startup() and shutdown() instead of serve(): several serve() calls would each install signal handlers.
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self.socket.listen(BACKLOG)
        await self._server.startup(sockets=[self.socket])

    async def close(self) -> None:
        """Stop accepting, and return when every connection has got its answer."""
        if self._server is not None:
            await self._server.shutdown(sockets=[self.socket])
        self.socket.close()
        if self.connector.address.scheme == "unix":
            _unlink(self.connector.address.path)

    def abandon(self) -> None:
        """Let a close that still waits for connections end."""
        if self._server is not None:
            self._server.force_exit = True


def _bind(address: Address) -> socket.socket:
    """Bind without listening, so that a taken port is known before any model loads. Raises OSError."""
    try:
        if address.scheme == "unix":
            _unlink(address.path)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            bound.bind(address.path)
        else:
            family, _, _, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
    except OSError as error:
        raise OSError(error.errno, f"Failed to bind to address: {address}: {error.strerror}") from None
    bound.setblocking(False)
    return bound


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _bound(address: Address, bound: socket.socket) -> Address:
    """The address with the port that the kernel chose where 0 was asked for."""
    return address if address.scheme == "unix" or address.port else replace(address, port=bound.getsockname()[1])


class _LibraryLog(logging.Handler):
    """Passes warnings of libraries on to the server's log; they would break into the console otherwise."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        level = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname)
        self._telemetry.log(level, f"library.{record.name}", self.format(record))


class Server:
    """Everything that runs in the frontend process."""

    def __init__(
        self,
        settings: Settings,
        nursery: Nursery,
        telemetry: Telemetry,
        gpus: int,
        authorization: Authorization | None,
    ) -> None:
        self._settings = settings
        self._authorization = authorization
        self._telemetry = telemetry
        self._nursery = nursery
        self._pool = Pool(
            settings.temp_dir, _frame_limit(settings), settings.blacklist_env_vars, _worker_environment(settings)
        )
        urls = [pattern.pattern for pattern in settings.allowed_urls]
        store = ArchiveStore(settings.model_store, settings.temp_dir, urls)
        assembly = Assembly(
            settings,
            placement=Placement(gpus),
            port=self._pool,
            events=telemetry,
            cpus=os.cpu_count() or 1,
            environ=os.environ,
        )
        self._engine = Engine(settings, store, assembly, telemetry)
        self._listeners = [
            Listener(connector) for connector in connectors(self._engine, telemetry, settings, authorization)
        ]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal asks for the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        await self._pool.open(self._nursery)
        try:
            await self._publish_keys()
            await self._load_initial_models()
            options = ProtocolOptions.of(self._settings)
            for listener in self._listeners:
                await listener.listen(options)
                self._info(f"{listener.connector.name} API bind to: {listener.address}")
            self._telemetry.announce(STARTED)
            await self._stop.wait()
        finally:
            await self._close()

    async def _close(self) -> None:
        """Refuse new work, let accepted work finish within `drain_timeout`, cut the rest, end the workers."""
        closing = [asyncio.ensure_future(listener.close()) for listener in self._listeners]
        await asyncio.wait(closing, timeout=self._settings.drain_timeout)
        await self._engine.close(0)
        await asyncio.wait(closing, timeout=1)
        for listener in self._listeners:
            listener.abandon()
        await asyncio.gather(*closing)
        await self._pool.close()

    async def _publish_keys(self) -> None:
        """Write the key file, now that no other server of this directory can hold our ports. Raises OSError."""
        if self._authorization is not None:
            await asyncio.to_thread(self._authorization.publish)
            self._telemetry.log("INFO", "util.TokenAuthorization", self._authorization.announcement)

    async def _load_initial_models(self) -> None:
        """Register what was named for start-up; workers load behind it. A model that fails is reported and left out."""
        for model in await asyncio.to_thread(self._initial_models):
            self._info(f"Loading initial models: {model.url}")
            registration = Registration(
                url=model.url,
                model_name=model.name,
                default_name=model.default_name,
                synchronous=False,
                at_startup=True,
            )
            try:
                await self._engine.register(registration)
            except ServerError as error:
                message = f"Failed to load model: {model.url}\n{error.type}: {error.message}"
                self._telemetry.log("WARN", "ModelServer", message)

    def _initial_models(self) -> list[InitialModel]:
        assert self._settings.model_store is not None
        try:
            return initial_models(self._settings.load_models, self._settings.model_store)
        except OSError as error:
            self._telemetry.log("WARN", "ModelServer", f"Failed to list the model store: {error}")
            return []

    def _info(self, message: str) -> None:
        self._telemetry.log("INFO", "ModelServer", message)


def _frame_limit(settings: Settings) -> int:
    """Bytes of one frame from a worker: a large batch of the largest replies fits, garbage in the length does not."""
    return min(256 * max(settings.max_response_size, 1 << 20), (1 << 31) - 1)


def _worker_environment(settings: Settings) -> dict[str, str]:
    return {
        "TS_DECODE_INPUT_REQUEST": settings.decode_input_request,
        "TS_IPEX_ENABLE": settings.ipex_enable,
        "TS_IPEX_GPU_ENABLE": settings.ipex_gpu_enable,
    }


def _check_servable(settings: Settings) -> None:
    """Settings without which, or with which, nothing useful can start. Raises ConfigurationError."""
    if settings.model_store is None:
        raise ConfigurationError("Missing mandatory parameter --model-store")
    for key in ("inference_address", "management_address", "metrics_address"):
        address: Address = getattr(settings, key)
        if address.tls:
            raise ConfigurationError(f"https is not served yet: {key}={address} ({settings.source(key)})")


def main(arguments: Sequence[str]) -> int:
    """Run a server in this process; the exit status. `arguments` begins with the marker that supervisors look for."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        settings = load(parse(arguments[1:]), os.environ, Path.cwd())
        _check_servable(settings)
        return _run(settings)
    except ConfigurationError as error:
        print(f"Invalid configuration: {error}", flush=True)
        return 1


def _run(settings: Settings) -> int:
    # Requests leave no cycles behind, so the collector finds nothing: looking less often gave about 3 % more requests
    # a second and a tenth off their 99th percentile.
    gc.set_threshold(50_000, 20, 100)
    nursery = Nursery.launch(os.environ)  # before the loop and before any thread; it ends when this process does
    telemetry = Telemetry(settings)
    logging.basicConfig(handlers=[_LibraryLog(telemetry)])
    logging.getLogger("python_multipart").disabled = True  # it warns of every malformed body; the client is told
    try:
        return _serve(settings, nursery, telemetry)
    finally:
        telemetry.flush()
        telemetry.log("INFO", "ModelServer", "Torchserve stopped.")
        telemetry.close()


def _serve(settings: Settings, nursery: Nursery, telemetry: Telemetry) -> int:
    gpus = settings.usable_gpus(count_gpus(os.environ))
    memory = psutil.virtual_memory().total >> 20
    for notice in [*settings.notices, *unserved_settings(settings)]:
        telemetry.log(notice.level, notice.logger, notice.message)
    telemetry.log("INFO", "ModelServer", banner(settings, gpus, os.cpu_count() or 1, memory, version()))
    authorization = None
    if not settings.disable_token_authorization:
        authorization = Authorization(KeyFile(Path.cwd() / "key_file.json"), settings.token_expiration_min)

    async def run() -> None:
        await Server(settings, nursery, telemetry, gpus, authorization).run()

    try:
        uvloop.run(run())
    except OSError as error:
        print(error.strerror or error, file=sys.stderr, flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        if authorization is not None:
            authorization.withdraw()  # not before the loop is closed: a renewal may be writing the file until then
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
