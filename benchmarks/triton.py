"""Triton to compare with: the server and its Python backend as PyPI's `nvidia-pytriton` brings them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PathDistribution
from pathlib import Path

from benchmarks.plan import BATCHED, INFER, MAX_BATCH_DELAY, PICTURE, Deployment
from benchmarks.processes import ProcessTree
from benchmarks.servers import clean_environment, free_ports, wait_for_answer
from benchmarks.torchserve import Unavailable

REQUIREMENTS = ("nvidia-pytriton>=0.7",)
MODELS = Path(__file__).with_name("triton_models")
DEPLOYMENTS = (Deployment(INFER, 1), Deployment(INFER, BATCHED), Deployment(PICTURE, 1))
# Inputs and outputs of the models, by the name of the handler; a dimension in front of theirs counts the rows.
TENSORS = {
    "infer": 'input [{name: "x" data_type: TYPE_FP32 dims: [4]}]\n'
    'output [{name: "y" data_type: TYPE_FP32 dims: [4]}]\n',
    "picture": 'input [{name: "picture" data_type: TYPE_FP32 dims: [3, 224, 224]}]\n'
    'output [{name: "first" data_type: TYPE_FP32 dims: [1]}]\n',
}


def prepare_triton(environment: Path) -> Path:
    """The site-packages of an environment with Triton, made on the first run. Raises Unavailable."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        raise Unavailable("comes for Linux on x86_64 only")
    installed = environment / "installed"
    if not installed.exists():
        _install(environment)
        installed.touch()
    return next(environment.glob("lib/python*/site-packages")).absolute()


def triton_version(packages: Path) -> str:
    """`nvidia-pytriton 0.7.0`."""
    (found,) = packages.glob("nvidia_pytriton-*.dist-info")
    return f"nvidia-pytriton {PathDistribution(found).version}"


def _install(environment: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    environment.parent.mkdir(parents=True, exist_ok=True)
    log = environment.with_suffix(".install.log")
    python = environment / "bin" / "python"
    with log.open("w") as output:
        for command in (
            [sys.executable, "-m", "venv", str(environment)],
            [str(python), "-I", "-m", "pip", "install", *REQUIREMENTS],
        ):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                raise Unavailable(f"could not be installed, see {log}")


def config_of(deployment: Deployment) -> str:
    """One instance; batches are made as modelserver makes them: full, or older than the delay."""
    batching = f"dynamic_batching {{max_queue_delay_microseconds: {MAX_BATCH_DELAY * 1000}}}\n"
    return (
        'backend: "python"\n'
        f"max_batch_size: {deployment.batch}\n"
        f"{TENSORS[deployment.handler.name]}"
        f"{batching if deployment.batch > 1 else ''}"
        "instance_group [{kind: KIND_CPU count: 1}]\n"
    )


class TritonServer:
    """Triton with one instance of each of the models that it is to serve; they are known before it starts."""

    tree: ProcessTree

    def __init__(self, packages: Path, directory: Path) -> None:
        self._packages = packages
        self._directory = directory
        self._scratch = Path(tempfile.mkdtemp(prefix="bench-"))
        (self._port,) = free_ports(1)

    def start(self) -> None:
        """All models that there are for it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        server = self._packages / "pytriton" / "tritonserver"
        command = [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={self.repository()}",
            f"--backend-directory={self._backends(server)}",
            f"--cache-directory={server / 'caches'}",
            "--backend-config=python,shm-default-byte-size=16777216",
            *("--http-address=127.0.0.1", f"--http-port={self._port}", "--allow-grpc=false", "--allow-metrics=false"),
        ]
        environment = clean_environment(self._scratch) | {
            "PATH": f"{self._packages.parents[2] / 'bin'}{os.pathsep}{os.environ['PATH']}",  # has the backend's numpy
            "LD_LIBRARY_PATH": str(self._packages / "nvidia_pytriton.libs"),
        }
        self.tree = ProcessTree(command, environment, self._directory, self._directory / "console.log")
        wait_for_answer(self.tree, f"http://127.0.0.1:{self._port}/v2/health/ready")

    def repository(self) -> Path:
        """A folder with the models as Triton wants them."""
        for deployment in DEPLOYMENTS:
            version = self._scratch / "models" / deployment.model / "1"
            version.mkdir(parents=True)
            shutil.copyfile(MODELS / f"{deployment.handler.name}.py", version / "model.py")
            (version.parent / "config.pbtxt").write_text(config_of(deployment))
        return self._scratch / "models"

    def _backends(self, server: Path) -> Path:
        """The Python backend beside the program of this interpreter's version that it starts."""
        backends = self._scratch / "backends"
        shutil.copytree(server / "backends" / "python", backends / "python")
        version = ".".join(map(str, sys.version_info[:2]))
        shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        return backends

    def deploy(self, deployment: Deployment) -> None:
        """Done by start."""

    def infer_url(self, deployment: Deployment) -> str:
        """Where inference is asked for."""
        return f"http://127.0.0.1:{self._port}/v2/models/{deployment.model}/infer"

    def stop(self) -> None:
        """With its backend's processes."""
        self.tree.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)
