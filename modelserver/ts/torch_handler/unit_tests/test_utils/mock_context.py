"""`MockContext`: a context for unit tests of handlers, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from ts.metrics.metrics_store import MetricsStore
from ts.utils.util import get_yaml_config


class MockContext:
    """Knows a model directory; set `explain` to make requests ask for explanations."""

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str | Path = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        files = {"serializedFile": model_pt_file, "modelFile": model_file}
        self.manifest = {"model": {name: file for name, file in files.items() if file}}
        self.system_properties: dict[str, Any] = {"model_dir": model_dir}
        if torch.cuda.is_available() and gpu_id is not None:
            self.system_properties["gpu_id"] = gpu_id
        self.explain = False
        self.metrics = MetricsStore({0: str(uuid4())}, model_name)
        config = model_yaml_config_file
        self.model_yaml_config = get_yaml_config(Path(model_dir, config)) if config else {}

    def get_request_header(self, idx: int, key: str) -> bool:
        """True for every header of every request but the first, if `explain` is set."""
        return bool(self.explain and idx)
