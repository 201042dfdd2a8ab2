"""Engines of TensorRT-LLM: the class that runs them; as a program, this module builds one from a checkpoint."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_RECORD = "built_from.json"


def engine_class() -> Any:
    """The class that builds and runs engines. From 1.0 on the library's usual `LLM` is another: it runs on PyTorch."""
    try:
        return importlib.import_module("tensorrt_llm._tensorrt_engine").LLM
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tensorrt_llm"):
            raise  # something that it needs
        return importlib.import_module("tensorrt_llm.llmapi").LLM


def ensure_engine(folder: Path, checkpoint: str, dtype: str, max_batch_size: int) -> None:
    """Build the engine in `folder`, in a process that gives the GPU back, unless the same one was built there before.

    `checkpoint` is a folder in the form of the Hugging Face hub. Raises `RuntimeError`.
    """
    recipe = {"checkpoint": checkpoint, "dtype": dtype, "max_batch_size": max_batch_size, "release": _release()}
    if _built_from(folder) == recipe:
        return
    shutil.rmtree(folder, ignore_errors=True)
    flags = ["--checkpoint", checkpoint, "--dtype", dtype, "--max_batch_size", str(max_batch_size)]
    command = [sys.executable, "-P", "-m", __name__, *flags, "--output", str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise RuntimeError(f"TensorRT-LLM could not build an engine of {checkpoint}: exit status {status}")
    (folder / _RECORD).write_text(json.dumps(recipe), encoding="utf-8")


def _built_from(folder: Path) -> Any:
    """The recipe of the engine in a folder, None if there is none that was finished."""
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _release() -> str:
    """Engines run with the release that has built them, and no other."""
    try:
        return metadata.version("tensorrt_llm")
    except metadata.PackageNotFoundError:
        return ""


def main(argv: Sequence[str] | None = None) -> None:
    """Build the engine that the flags describe."""
    parser = argparse.ArgumentParser(description="Build an engine of TensorRT-LLM")
    parser.add_argument("--checkpoint", required=True, help="folder of the model, in the form of the Hugging Face hub")
    parser.add_argument("--dtype", default="bfloat16", help="type of weights and activations")
    parser.add_argument("--max_batch_size", type=int, default=4, help="requests that are computed together")
    parser.add_argument("--output", required=True, help="folder of the engine")
    arguments = parser.parse_args(argv)
    library = importlib.import_module("tensorrt_llm.llmapi")
    engine = engine_class()(
        model=arguments.checkpoint,
        dtype=arguments.dtype,
        build_config=library.BuildConfig(max_batch_size=arguments.max_batch_size),
    )
    engine.save(arguments.output)


if __name__ == "__main__":
    main()
