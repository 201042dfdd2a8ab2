"""Importing the API is cheap where it can be, and never touches an accelerator."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import ts

MODULES = sorted(module.name for module in pkgutil.walk_packages(ts.__path__, "ts."))

ARMED = """
import types
import torch

def arm(module):
    for name, value in list(vars(module).items()):
        if isinstance(value, types.FunctionType):
            def explode(*args, _name=f"{module.__name__}.{name}", **kwargs):
                raise AssertionError(_name + " was called")
            setattr(module, name, explode)

arm(torch.cuda)
arm(torch.xpu)
arm(torch.backends.mps)
torch._C._cuda_getDeviceCount = lambda: 1 / 0
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_the_list_is_complete() -> None:
    assert {"ts.context", "ts.torch_handler.image_classifier", "ts.metrics.dimension"} <= set(MODULES)


def test_no_import_queries_a_device() -> None:
    done = run(ARMED + f"import importlib\nfor name in {MODULES!r}:\n    importlib.import_module(name)\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_trap_works() -> None:
    assert run(ARMED + "torch.cuda.is_available()").returncode != 0


def test_no_import_starts_a_thread() -> None:
    names = [name for name in MODULES if "torch_handler" in name]
    script = f"import importlib, os\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    count = "print(len(os.listdir('/proc/self/task')))"
    done = run(script + count, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    assert done.stdout.strip() == "1", done.stderr


@pytest.mark.parametrize(
    "name",
    ["ts.context", "ts.service", "ts.utils.util", "ts.handler_utils.utils", "ts.handler_utils.timer",
     "ts.metrics.metric_cache_yaml_impl", "ts.protocol.otf_message_handler"],
)  # fmt: skip
def test_light_modules_import_nothing_heavy(name: str) -> None:
    script = f"import sys, {name}\nprint(sorted({{'torch', 'PIL', 'numpy', 'asyncio'}} & set(sys.modules)))"
    done = run(script)
    assert done.stdout.strip() == "[]", done.stderr


def test_base_handler_needs_torch_alone() -> None:
    done = run("import sys, ts.torch_handler.base_handler\nprint('PIL' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
