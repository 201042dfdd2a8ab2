"""Who is measured, and on what: each contender knows its version and how to make a server of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.archives import Archives
from benchmarks.figures import KSERVE
from benchmarks.plan import MAX_BODY, NOOP, Deployment, Point
from benchmarks.servers import EchoServer, GrpcServer, InferServer, PrototypeServer, RestServer, Server
from benchmarks.targets import GRPC_ECHO, MODELSERVER, PROTOTYPE, TORCHSERVE, TORCHSERVE_ACCESS, TRITON
from benchmarks.torchserve import Unavailable, prepare_torchserve, write_access_log_config
from benchmarks.triton import TritonServer, prepare_triton, triton_version

TITLES = {
    MODELSERVER: "modelserver",
    TORCHSERVE: "TorchServe",
    TORCHSERVE_ACCESS: "TorchServe, access log only",
    PROTOTYPE: "prototype",
    GRPC_ECHO: "bare grpcio",
    TRITON: "Triton",
}


@dataclass(frozen=True)
class Contender:
    """One server of the comparison. `launch` takes the deployments of the load and a directory for logs."""

    name: str
    version: str
    launch: Callable[[Sequence[Deployment], Path], Server] | None  # None: it speaks gRPC only
    covers: Callable[[Point], bool]
    launch_rest: Callable[[Path], RestServer] | None = None  # None: nothing to register, scale or kill
    launch_guarded: Callable[[Path], RestServer] | None = None  # one that asks for keys, and obeys who wants to close
    launch_grpc: Callable[[Path], GrpcServer] | None = None
    launch_logging: Callable[[Path, Path | None], RestServer] | None = None  # with a log configuration
    launch_scraped: Callable[[Path], RestServer] | None = None  # one that exposes all its metrics
    launch_infer: Callable[[Path], InferServer] | None = None
    infers: tuple[str, ...] = ()  # points of load of Open Inference that it can be put under
    executable: Path | None = None  # of those whose workers are measured by themselves

    @property
    def title(self) -> str:
        return TITLES[self.name]


def everything(point: Point) -> bool:
    return True


def noop_or_32_clients(point: Point) -> bool:
    return point.deployment.handler is NOOP or point.clients == 32


def noop_with_32_clients(point: Point) -> bool:
    return point.deployment.handler is NOOP and point.clients == 32


def nothing(point: Point) -> bool:
    return False


def find(name: str, archives: Archives, cache: Path, torchserve_env: Path | None) -> Contender:
    """The contender of this name. Raises Unavailable, with the reason, if it cannot run on this machine."""
    if name == PROTOTYPE:
        return Contender(
            name,
            version_of(Path(sys.executable), "uvicorn"),
            lambda deployments, directory: PrototypeServer(deployments, archives, directory),
            noop_or_32_clients,
        )
    if name == GRPC_ECHO:
        return Contender(name, version_of(Path(sys.executable), "grpcio"), None, nothing, launch_grpc=EchoServer)
    if name == TRITON:
        packages = prepare_triton(cache / "triton")
        return Contender(
            name,
            triton_version(packages),
            None,
            nothing,
            launch_infer=lambda directory: TritonServer(packages, directory),
            infers=KSERVE[:3],
        )
    if name == MODELSERVER:
        executable = Path(sys.executable).with_name("modelserver")
        if not executable.exists():
            raise Unavailable("not installed beside this interpreter")
        return _rest(name, executable, archives, everything)
    executable = prepare_torchserve(cache / "torchserve", torchserve_env)
    if name == TORCHSERVE:
        return _rest(name, executable, archives, everything)
    log_config = write_access_log_config(cache / "access-log-only.xml")
    return _rest(name, executable, archives, noop_with_32_clients, "--log-config", str(log_config))


def _rest(
    name: str, executable: Path, archives: Archives, covers: Callable[[Point], bool], *arguments: str
) -> Contender:
    def launch_rest(directory: Path) -> RestServer:
        return RestServer(executable, archives, directory, arguments)

    def launch_guarded(directory: Path) -> RestServer:
        return RestServer(
            executable, archives, directory, arguments, keys=True, settings={"max_request_size": MAX_BODY}
        )

    def launch_logging(directory: Path, config: Path | None) -> RestServer:
        return RestServer(executable, archives, directory, ("--log-config", str(config)) if config else ())

    def launch_scraped(directory: Path) -> RestServer:
        settings = {"metrics_mode": "prometheus", "metrics_histograms": "true"}
        return RestServer(executable, archives, directory, arguments, settings=settings)

    distribution = MODELSERVER if name == MODELSERVER else TORCHSERVE
    return Contender(
        name,
        version_of(executable.with_name("python"), distribution),
        lambda deployments, directory: launch_rest(directory),
        covers,
        None if arguments else launch_rest,
        launch_guarded if name == MODELSERVER else None,
        None if arguments else launch_rest,
        None if arguments else launch_logging,
        launch_scraped if name == MODELSERVER else None,
        launch_infer=None if arguments else launch_rest,
        infers=KSERVE if name == MODELSERVER else KSERVE[:2],
        executable=executable,
    )


def version_of(python: Path, distribution: str) -> str:
    """Versions of a distribution and of torch in an interpreter's environment: `torchserve 0.12.0, torch 2.13.0`."""
    script = (
        "import importlib.metadata as metadata, json, sys\n"
        "print(json.dumps([metadata.version(name) for name in sys.argv[1:]]))"
    )
    command = [str(python), "-I", "-c", script, distribution, "torch"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    own, torch = json.loads(found.stdout)
    return f"{distribution} {own}, torch {torch}"
