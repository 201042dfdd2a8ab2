"""Serves one large language model until it is told to stop: `python -m ts.llm_launcher --help`.

It makes a model directory for one of the handlers of language models, and runs a server that has nothing else. The
flags, the directory and the order of the steps are those that deployments know.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml

from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils
from ts import launcher
from ts.handler_utils.trt_llm_engine import ensure_engine

_INSTALLATION = {
    "vllm": ("vllm", "pip install vllm"),
    "trt_llm": ("tensorrt_llm", "pip install tensorrt_llm"),
}
_CONFIG = "model-config.yaml"
MARK = "# Written by ts.llm_launcher, at every start anew. Without this line the directory is left as it is.\n"
_HOLD_LIMIT = 30.0  # seconds


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 after a requested stop, 130 if it is interrupted before, else what has failed."""
    arguments = parser().parse_args(argv)
    logging.getLogger("model_archiver").setLevel(logging.CRITICAL)  # what it raises is printed below
    _listen(signal.default_int_handler)  # what was made is removed, whatever asks for the end
    try:
        sys.exit(launch(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, ModelArchiverError, OSError) as error:
        sys.exit(f"ts.llm_launcher: {error}")


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = argparse.ArgumentParser(
        prog="python -m ts.llm_launcher", description="Serve a large language model with vLLM or TensorRT-LLM."
    )

    def add(flag: str, text: str, default: Any = None, kind: Any = str) -> None:
        metavar = {_positive: "N", _fraction: "F"}.get(kind, "TEXT")
        if default is not None:
            text += " (default: %(default)s)"
        made.add_argument(
            flag, dest=flag[2:].rpartition(".")[2], metavar=metavar, type=kind, default=default, help=text
        )

    add("--model_name", "name of the model in URLs", "model")
    add("--model_store", "directory of models, made if it is missing", "model_store")
    add("--model_id", "name of the model on the Hugging Face hub, or a path", "meta-llama/Meta-Llama-3.1-8B-Instruct")
    made.add_argument("--disable_token_auth", action="store_true", help="requests need no keys")
    add("--startup_timeout", "seconds that the model may take to load", 1200, _positive)
    add("--engine", "vllm or trt_llm", "vllm")
    add("--vllm_engine.max_num_seqs", "sequences that are computed together", 256, _positive)
    add("--vllm_engine.max_model_len", "tokens of prompt and answer together; by default the model's", None, _positive)
    add("--vllm_engine.download_dir", "directory that weights are fetched into")
    add("--dtype", "trt_llm: type of weights and activations", "bfloat16")
    add("--trt_llm_engine.max_batch_size", "requests that are computed together", 4, _positive)
    add(
        "--trt_llm_engine.kv_cache_free_gpu_memory_fraction",
        "part of the free GPU memory that keys and values get",
        0.1,
        _fraction,
    )
    return made


def launch(arguments: argparse.Namespace) -> int:
    """Make the model directory, serve it until a signal comes; the exit status.

    A server that runs is stopped first. A model directory that somebody else has made is served as it is. Raises
    `RuntimeError` for an engine that is not known, not installed or cannot be built, `ModelArchiverError` for a name
    that no model can have, `OSError`.
    """
    check_engine(arguments.engine)
    ModelExportUtils.check_model_name_regex_or_exit(arguments.model_name)
    folder = Path(arguments.model_store, arguments.model_name)
    launcher.stop()
    with _held(folder):
        if any(folder.iterdir()) and not _is_ours(folder):
            notice = "was not made by this command: it is served as it is, options of the engine do not count"
            print(f"{folder} {notice}", flush=True)
            return _serve(_command(arguments))
        try:
            _write(folder, arguments, configuration(arguments, {}))  # so that it is known as ours, whatever comes
            _write(folder, arguments, _prepare(folder, arguments))
            return _serve(_command(arguments))
        finally:
            if arguments.engine == "vllm":  # an engine of TensorRT-LLM takes long to build: it is kept
                shutil.rmtree(folder, ignore_errors=True)


def check_engine(engine: str) -> None:
    """Raises `RuntimeError`, which says what to install, unless the engine is there for the workers."""
    if engine not in _INSTALLATION:
        raise RuntimeError(f"Unsupported LLM Engine: {engine}, choose from {', '.join(_INSTALLATION)}")
    package, advice = _INSTALLATION[engine]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # a folder of that name in the working directory
        raise RuntimeError(
            f"--engine {engine} needs the package {package}, which is not installed for {sys.executable}: {advice}"
        )


def configuration(arguments: argparse.Namespace, handler: dict[str, Any], gpus: int = 0) -> dict[str, Any]:
    """The content of the model's YAML; `handler` is the section of that name, `gpus` what one worker gets of them."""
    parallel = {"parallelType": "custom", "parallelLevel": gpus} if gpus else {}
    return {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "responseTimeout": 1200,
        "startupTimeout": arguments.startup_timeout,
        "deviceType": "gpu",
        "asyncCommunication": True,
        **parallel,
        "handler": handler,
    }


def vllm_section(arguments: argparse.Namespace, gpus: int) -> dict[str, Any]:
    """What the vLLM handler is told. On a machine without GPUs the engine still has one part."""
    engine = {
        "max_num_seqs": arguments.max_num_seqs,
        "max_model_len": arguments.max_model_len,
        "download_dir": str(Path(arguments.download_dir).absolute()) if arguments.download_dir else None,
        "tensor_parallel_size": max(gpus, 1),
    }
    given = {name: value for name, value in engine.items() if value is not None}
    return {"model_path": arguments.model_id, "vllm_engine_config": given}


def _prepare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The content of the YAML, once everything that it names is there."""
    if arguments.engine == "vllm":
        gpus = _count_gpus()
        return configuration(arguments, vllm_section(arguments, gpus), gpus)
    checkpoint = arguments.model_id
    if not Path(checkpoint).is_dir():
        hub = importlib.import_module("ts.utils.hf_utils")
        checkpoint = hub.download_model(arguments.model_id, model_path=folder.absolute() / "checkpoint")
    checkpoint = str(Path(checkpoint).absolute())
    engine = folder.absolute() / "engine"
    ensure_engine(engine, checkpoint, arguments.dtype, arguments.max_batch_size)
    cache = {"free_gpu_memory_fraction": arguments.kv_cache_free_gpu_memory_fraction}
    return configuration(arguments, {"tokenizer_dir": checkpoint, "engine_dir": str(engine), "kv_cache_config": cache})


def _count_gpus() -> int:
    """As torch counts them, in a process of its own: this one is to stay small. Raises `RuntimeError`."""
    script = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"torch cannot count the GPUs: {done.stderr.strip().rpartition(chr(10))[2]}")
    return int(done.stdout)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The model directory, made if it is missing, while no other process of this command has it.

    One whose server has just been stopped still removes its own. Raises `RuntimeError` if that takes too long.
    """
    end = time.monotonic() + _HOLD_LIMIT
    while (held := _hold(folder)) is None:
        if time.monotonic() > end:
            raise RuntimeError(f"{folder} is in use by another ts.llm_launcher")
        time.sleep(0.1)
    try:
        yield
    finally:
        os.close(held)


def _hold(folder: Path) -> int | None:
    """The locked descriptor of the directory; None if another process has it, or has just removed it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _is_ours(folder: Path) -> bool:
    """This command has made the directory, and was killed before it could remove it, or keeps it."""
    try:
        return (folder / _CONFIG).read_text(encoding="utf-8").startswith(MARK)
    except (OSError, ValueError):
        return False


def _write(folder: Path, arguments: argparse.Namespace, content: dict[str, Any]) -> None:
    """Write manifest and YAML of the model directory."""
    with tempfile.TemporaryDirectory() as work:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        file = Path(work, _CONFIG)
        file.write_text(MARK + text, encoding="utf-8")
        ModelArchiver.generate_model_archive(
            ModelArchiverConfig(
                model_name=folder.name,
                handler=f"{arguments.engine}_handler",
                version="1.0",
                export_path=str(folder.parent),
                archive_format="no-archive",
                config_file=str(file),
                force=True,
            )
        )


def _command(arguments: argparse.Namespace) -> list[str]:
    """The server's command line; ports and the rest come from a `config.properties`, as for every start."""
    name = arguments.model_name
    flags = ["--start", "--foreground", "--ncs", "--model-store", arguments.model_store, "--models", f"{name}={name}"]
    flags += ["--disable-token-auth"] if arguments.disable_token_auth else []
    return [sys.executable, "-m", "ts.model_server", *flags]


def _serve(command: Sequence[str]) -> int:
    """Run the server to its end, hand it every signal that asks for this; its exit status, 0 after such a signal.

    It has a process group of its own: a terminal's Ctrl-C would reach it a second time, which means haste.
    """
    server: subprocess.Popen[bytes] | None = None
    asked = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if server is not None:
            server.terminate()

    _listen(hand_on)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    if asked:
        server.terminate()  # what came before it was there
    status = server.wait()
    if asked:
        return 0
    return status if status >= 0 else 128 - status


def _listen(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call this for every signal that asks for the end; a hang-up that is ignored, by nohup for one, stays ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an integer above 0")
    return int(text)


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0 and at most 1")
    return number


if __name__ == "__main__":
    main()
