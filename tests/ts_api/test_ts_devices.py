"""Which device a model goes to, first match wins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ts.torch_handler.devices import choose_device, enable_tensor_cores, optimize_for_ipex


def yes() -> bool:
    return True


def no() -> bool:
    return False


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(module, "is_available", no)
    for variable in ("TS_IPEX_ENABLE", "TS_IPEX_GPU_ENABLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("gpu_id", [None, 0, 1])
def test_cpu(gpu_id: int | None) -> None:
    assert choose_device(gpu_id, None) == ("cpu", torch.device("cpu"))


@pytest.mark.parametrize(("gpu_id", "device"), [(0, "cuda:0"), (3, "cuda:3"), ("1", "cuda:1"), (None, "cpu")])
def test_cuda(monkeypatch: pytest.MonkeyPatch, gpu_id: Any, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", yes)
    assert choose_device(gpu_id, None) == (device.partition(":")[0], torch.device(device))


@pytest.mark.parametrize(
    ("gpu_id", "setting", "device"), [(1, "true", "xpu:1"), (1, "false", "cpu"), (None, "true", "cpu")]
)
def test_xpu(monkeypatch: pytest.MonkeyPatch, gpu_id: int | None, setting: str, device: str) -> None:
    monkeypatch.setattr(torch.xpu, "is_available", yes)
    monkeypatch.setenv("TS_IPEX_GPU_ENABLE", setting)
    assert choose_device(gpu_id, None) == (device.partition(":")[0], torch.device(device))


@pytest.mark.parametrize(("gpu_id", "device"), [(0, "mps"), (None, "cpu")])
def test_mps(monkeypatch: pytest.MonkeyPatch, gpu_id: int | None, device: str) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", yes)
    assert choose_device(gpu_id, None) == (device, torch.device(device))


def test_cuda_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(module, "is_available", yes)
    monkeypatch.setenv("TS_IPEX_GPU_ENABLE", "true")
    assert choose_device(0, None) == ("cuda", torch.device("cuda:0"))


@pytest.mark.parametrize("setting", ["true", "false"])
def test_without_the_extension_the_model_stays(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("TS_IPEX_ENABLE", setting)
    model = torch.nn.Linear(1, 1)
    assert optimize_for_ipex(model, torch.device("cpu")) is model


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "high"), ((9, 0), "high"), ((7, 5), "highest")])
def test_tensor_cores(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        enable_tensor_cores(torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
        enable_tensor_cores(torch.device("cuda:1"))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
