"""Start, run, drain, stop: the one place that owns signals, sockets, engine and nursery, and joins the rooms."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import uvloop

from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.descriptors import Headroom, grpc_connections, raise_limit
from modelserver.ending import StopSignals, Threads, leave
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.launchers import CPU_LAUNCHER
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import ConfigurationError, InvalidSnapshot, ServerError
from modelserver.identity.pem_pair import PemPair, prepare_pem_pair
from modelserver.identity.tls import Tls, prepare_tls
from modelserver.pool.devices import Devices, Gauge, count_cpus, find_devices, responds
from modelserver.pool.nursery import Nursery
from modelserver.pool.pool import Pool
from modelserver.rest.apps import connectors
from modelserver.rest.authorization import Authorization
from modelserver.rest.key_file import KeyFile
from modelserver.rest.listener import Listener
from modelserver.rest.memberships import Memberships
from modelserver.rest.protocol import ProtocolOptions
from modelserver.rest.vestibule import HttpsOptions
from modelserver.scratch import RunDirectory, sweep
from modelserver.settings.banner import banner
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.settings.snapshot import Snapshot
from modelserver.settings.startup import InitialModel, initial_models
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_settings
from modelserver.settings.version import version
from modelserver.settings.worker_environment import worker_environment
from modelserver.snapshots.restoration import restore
from modelserver.snapshots.snapshots import Snapshots
from modelserver.telemetry.library_log import LibraryLog
from modelserver.telemetry.system import SystemMetrics
from modelserver.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from modelserver.rpc.listener import Listener as GrpcListener

STARTED: Final = "Model server started."
_CUT_PATIENCE: Final = 2.0  # seconds for workers to end, and for their clients to be told, once nothing is waited for


class Server:
    """Everything that runs in the frontend process."""

    def __init__(
        self,
        settings: Settings,
        run_directory: RunDirectory,
        nursery: Nursery,
        telemetry: Telemetry,
        devices: Devices,
        authorization: Authorization | None,
        tls: Tls | None,
        grpc_tls: PemPair | None,
        stop: StopSignals,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._authorization = authorization
        self._telemetry = telemetry
        self._nursery = nursery
        self._run_directory = run_directory
        self._pool = Pool(
            run_directory.path,
            _frame_limit(settings),
            settings.blacklist_env_vars,
            worker_environment(settings),
            by_hand=settings.debug,
        )
        store = ArchiveStore.of(settings, run_directory)
        assembly = Assembly(
            settings,
            placement=Placement(devices.count, devices.variable, devices.names),
            port=self._pool,
            events=telemetry,
            cpus=count_cpus(),
            environ=os.environ,
            cpu_launcher=_cpu_launcher(settings, telemetry),
            memberships=Memberships(SequenceKeys.of(settings), settings.max_request_size),
        )
        dependencies = Dependencies.of(settings, os.environ)
        self._snapshots = Snapshots(settings, telemetry) if settings.snapshots else None
        self._system = SystemMetrics(
            settings,
            telemetry,
            lambda: self._engine.worker_pids(),
            gpus=devices.names if devices.variable == "CUDA_VISIBLE_DEVICES" else (),
            environment=_script_environment(settings),
        )
        self._engine = Engine(
            settings,
            store,
            dependencies,
            assembly,
            telemetry,
            Gauge(devices),
            self._snapshots,
            memory=self._system.memory,
        )
        self._listeners = [
            Listener(connector) for connector in connectors(self._engine, telemetry, settings, authorization)
        ]
        self._grpc = _grpc_listeners(self._engine, telemetry, settings, authorization, grpc_tls)
        self._stop = stop

    async def run(self) -> None:
        """Serve until a signal asks for the end."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Threads())
        self._stop.attach(loop)
        await self._pool.open(self._nursery)
        sampling = asyncio.create_task(self._system.run(), name="system metrics")
        try:
            await asyncio.to_thread(self._sweep)
            await self._publish_keys()
            await self._unless_stopped(self._load_initial_models())
            if self._stop.asked.is_set():
                return
            headroom = Headroom(self._warn)
            options = ProtocolOptions.of(self._settings, headroom.admits)
            https = self._https_options(headroom)
            for listener in self._listeners:
                self._info(f"Initialize {listener.connector.name} server with: uvloop.")
                await listener.listen(options, https)
                self._info(f"{listener.connector.name} API bind to: {listener.address}")
            for grpc in self._grpc:
                await grpc.listen()
                self._info(f"{grpc.name} API bind to: {grpc.endpoint}")
            if self._snapshots is not None:
                await self._snapshots.open(self._engine.saved_models())
            gc.freeze()  # what is there now stays: a full collection would look at all of it in vain, for 30 ms
            self._telemetry.announce(STARTED)
            await self._stop.asked.wait()
            await self._go_lame()
        finally:
            sampling.cancel()
            await self._close()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that may take minutes; a signal that asks for the end cancels it."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.asked.wait())
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        working.cancel()
        await asyncio.wait([working])
        if not working.cancelled():
            working.result()

    async def _go_lame(self) -> None:
        """Tell whoever sends work to go elsewhere, and serve on for `lame_duck_delay`, or until a second signal."""
        self._engine.go_lame()
        for listener in self._listeners:
            listener.reception.go_lame()
        if delay := self._settings.lame_duck_delay:
            self._info(f"Lame duck for {delay} s: /ping is unhealthy, connections end with their next response.")
            await _up_to(delay, self._stop.hurried.wait())

    async def _close(self) -> None:
        """Refuse new work, let accepted work finish within `drain_timeout`, cut the rest, end the workers."""
        for grpc in self._grpc:
            grpc.stop_listening()
        await asyncio.gather(*(listener.stop_listening() for listener in self._listeners))
        await self._drain()
        if self._snapshots is not None:
            await self._snapshots.close(self._engine.saved_models())
        await self._end_models()  # what is queued or running is answered now
        for listener in self._listeners:
            listener.reception.abort()
        await asyncio.gather(*(grpc.close() for grpc in self._grpc))
        await self._pool.close()
        await self._end_models()  # what has waited for the pool

    async def _drain(self) -> None:
        """Let accepted work finish within `drain_timeout`, or until a third signal."""
        limit = self._settings.drain_timeout
        receptions = [listener.reception for listener in self._listeners]
        for reception in receptions:
            reception.close()
        self._info(f"Draining: {self._in_flight()} in flight, at most {limit} s.")
        await _up_to(limit, self._emptied(), self._stop.forced.wait(), until=asyncio.FIRST_COMPLETED)
        if any(reception.connections for reception in receptions) or any(grpc.owed for grpc in self._grpc):
            self._info(f"Drain ends with {self._in_flight()} in flight: cut.")
        for reception in receptions:
            reception.give_up()
        for grpc in self._grpc:
            grpc.cut()

    async def _emptied(self) -> None:
        grpc = [listener.emptied() for listener in self._grpc]
        await asyncio.gather(*(listener.reception.emptied() for listener in self._listeners), *grpc)

    def _in_flight(self) -> str:
        owed = sum(listener.reception.owed for listener in self._listeners) + sum(grpc.owed for grpc in self._grpc)
        return "1 request" if owed == 1 else f"{owed} requests"

    async def _end_models(self) -> None:
        """End all model versions; not for longer than killed workers need, or their clients, to whom they are owed."""
        await _up_to(_CUT_PATIENCE, self._engine.close(0), self._emptied())

    def _sweep(self) -> None:
        """Remove what killed servers have left where this one works."""
        for path in sweep(self._run_directory.path.parent):
            self._info(f"Removed what a killed server left behind: {path}")

    async def _publish_keys(self) -> None:
        """Write the key file, now that no other server of this directory can hold our ports. Raises OSError."""
        if self._authorization is not None:
            await asyncio.to_thread(self._authorization.publish)
            self._telemetry.log("INFO", "util.TokenAuthorization", self._authorization.announcement)

    async def _load_initial_models(self) -> None:
        """Register what was named for start-up; workers load behind it. A model that fails is reported and left out.

        Raises InvalidSnapshot.
        """
        if self._settings.model_snapshot is not None:
            await self._restore(self._settings.model_snapshot)
            return
        failed = []
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
                failed.append(model.url)
        self._engine.begin(failed)

    async def _restore(self, snapshot: Snapshot) -> None:
        assert self._settings.model_store is not None
        text = self._settings.properties["model_snapshot"]
        await restore(snapshot, text, self._settings.model_store, self._engine, self._telemetry)
        registered = {name for name, _ in self._engine.list_models()}
        self._engine.begin(name for name in snapshot.models if name not in registered)

    def _initial_models(self) -> list[InitialModel]:
        assert self._settings.model_store is not None
        try:
            return initial_models(self._settings.load_models, self._settings.model_store)
        except OSError as error:
            self._telemetry.log("WARN", "ModelServer", f"Failed to list the model store: {error}")
            return []

    def _https_options(self, headroom: Headroom) -> HttpsOptions | None:
        if self._tls is None:
            return None
        return HttpsOptions(self._tls.context, headroom.admits_descriptor, report=self._report_tls)

    def _report_tls(self, level: str, message: str) -> None:
        self._telemetry.log(level, "http.ExtendedSSLHandler", message)

    def _info(self, message: str) -> None:
        self._telemetry.log("INFO", "ModelServer", message)

    def _warn(self, message: str) -> None:
        self._telemetry.log("WARN", "ModelServer", message)


async def _up_to(seconds: float, *waits: Coroutine[Any, Any, object], until: str = asyncio.ALL_COMPLETED) -> None:
    """Wait for all of these (or for the first one) for at most that many seconds. Raises what they raise."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    over, _ = await asyncio.wait(tasks, timeout=seconds, return_when=until)
    for task in tasks:
        task.cancel()
    for task in over:
        task.result()


def _grpc_listeners(
    engine: Engine,
    telemetry: Telemetry,
    settings: Settings,
    authorization: Authorization | None,
    tls: PemPair | None,
) -> list[GrpcListener]:
    """Raises OSError."""
    # Imported here, once the nursery runs: grpcio takes a quarter of a second, in which that one imports torch.
    from modelserver.rpc.services import listeners, server_credentials

    credentials = None if tls is None else server_credentials(tls.key, tls.chain, tls.authorities)
    return listeners(engine, telemetry, settings, authorization, credentials, grpc_connections())


def _cpu_launcher(settings: Settings, telemetry: Telemetry) -> list[str] | None:
    """Arguments of the CPU launcher; None without it, or if a trial shows that it does not work here. Blocks."""
    if not settings.cpu_launcher_enable:
        return None
    arguments = [argument for argument in settings.cpu_launcher_args.split(" ") if argument]
    trial = [str(settings.python), "-m", CPU_LAUNCHER, *arguments, "--no_python", "hostname"]
    telemetry.log("DEBUG", "wlm.WorkerLifeCycle", f"launcherAvailable cmdline: [{', '.join(trial)}]")
    if responds(trial, os.environ):
        return arguments
    text = f"{CPU_LAUNCHER} is not available. Proceeding without worker core pinning. "
    text += f"For better performance, please make sure {CPU_LAUNCHER} is available."
    telemetry.log("WARN", "wlm.WorkerLifeCycle", text)
    return None


def _frame_limit(settings: Settings) -> int:
    """Bytes of one frame from a worker: a large batch of the largest replies fits, garbage in the length does not."""
    return min(256 * max(settings.max_response_size, 1 << 20), (1 << 31) - 1)


def _script_environment(settings: Settings) -> dict[str, str]:
    """What the command for system metrics gets to see: the same as a worker."""
    environment = {**os.environ, **worker_environment(settings)}
    hidden = settings.blacklist_env_vars
    return {name: text for name, text in environment.items() if hidden is None or not hidden.fullmatch(name)}


def _check_servable(settings: Settings) -> None:
    """Settings without which nothing useful can start. Raises ConfigurationError."""
    if settings.model_store is None:
        raise ConfigurationError("Missing mandatory parameter --model-store")


def main(arguments: Sequence[str]) -> int:
    """Run a server in this process; the exit status. `arguments` begins with the marker that supervisors look for."""
    stop = StopSignals()
    stop.install()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        settings = load(parse(arguments[1:]), os.environ, Path.cwd())
        _check_servable(settings)
        with _make_run_directory(settings) as run_directory:
            return _run(settings, run_directory, prepare_tls(settings, run_directory.path), stop)
    except ConfigurationError as error:
        print(f"Invalid configuration: {error}", flush=True)
        return 1


def _make_run_directory(settings: Settings) -> RunDirectory:
    """Raises ConfigurationError."""
    try:
        return RunDirectory.make(settings.temp_dir)
    except OSError as error:
        message = f"cannot write to the temporary directory {settings.temp_dir}: {error.strerror}"
        raise ConfigurationError(message) from error


def _run(settings: Settings, run_directory: RunDirectory, tls: Tls | None, stop: StopSignals) -> int:
    # Requests over REST leave no cycles behind, and looking for them less often gave about 3 % more of them a second.
    # grpcio leaves one of six objects behind each call. They are best freed while the processor's cache still has them:
    # of 5,000 objects it takes 2 us a call and holds the loop up for a millisecond, of 50,000 up to 10 us and 80 ms.
    gc.set_threshold(5_000, 20, 100)
    # Before the loop and before any thread, and before the limit is raised; it ends when this process does.
    nursery = Nursery.launch(os.environ, run_directory.path, modules=settings.preload_modules)
    before, limit = raise_limit()
    telemetry = Telemetry(settings)
    telemetry.log("DEBUG", "ModelServer", f"Open files: at most {limit}, in workers {before}.")
    if not telemetry.python_logging:  # whose configuration libraries follow by themselves
        logging.basicConfig(handlers=[LibraryLog(telemetry)])
    logging.getLogger("python_multipart").disabled = True  # it warns of every malformed body; the client is told
    try:
        return _serve(settings, run_directory, nursery, telemetry, tls, stop)
    finally:
        telemetry.flush()
        telemetry.log("INFO", "ModelServer", "Inference model server stopped.")
        telemetry.log("INFO", "ModelServer", "Torchserve stopped.")
        telemetry.close()


def _serve(
    settings: Settings,
    run_directory: RunDirectory,
    nursery: Nursery,
    telemetry: Telemetry,
    tls: Tls | None,
    stop: StopSignals,
) -> int:
    devices = find_devices(os.environ)
    devices = devices.first(settings.usable_gpus(devices.count))
    memory = psutil.virtual_memory().total >> 20
    grpc_tls = prepare_pem_pair(settings)
    spoken = tls or grpc_tls  # of one identity, so that its flaws are told once
    for notice in [*settings.notices, *unserved_settings(settings), *(spoken.notices if spoken else ())]:
        telemetry.log(notice.level, notice.logger, notice.message)
    if settings.forgotten_gpu_count and devices.count:
        text = f"number_of_gpu=0 is the count of another machine: not used ({settings.forgotten_gpu_count})"
        telemetry.log("WARN", "util.ConfigManager", text)
    for warning in devices.warnings:
        telemetry.log("WARN", "util.ConfigManager", warning)
    telemetry.log("INFO", "ModelServer", banner(settings, devices.count, count_cpus(), memory, version()))
    authorization = None
    if not settings.disable_token_authorization:
        authorization = Authorization(KeyFile(Path.cwd() / "key_file.json"), settings.token_expiration_min)

    async def run() -> None:
        await Server(settings, run_directory, nursery, telemetry, devices, authorization, tls, grpc_tls, stop).run()

    try:
        uvloop.run(run())
    except OSError as error:
        print(error.strerror or error, file=sys.stderr, flush=True)
        return 1
    except InvalidSnapshot as error:
        print(f"InvalidSnapshotException: {error}", flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        if authorization is not None:
            authorization.withdraw()  # not before the loop is closed: a renewal may be writing the file until then
    return 0


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
