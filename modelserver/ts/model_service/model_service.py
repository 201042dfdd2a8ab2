"""`ModelService` and `SingleNodeService`, from which the oldest handlers derive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class ModelService(ABC):
    """A model under its name, with `inference` to be defined."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, Any] | None, gpu: int | None = None
    ) -> None:
        self.model_name = model_name
        self.model_dir = model_dir
        self.manifest = manifest
        self.gpu = gpu
        self.context: Any = None
        self.signature_: Any = None

    def initialize(self, context: Any) -> None:
        """Keep the context, and what it says of the model."""
        properties = context.system_properties
        self.context = context
        self.model_name = context.model_name
        self.model_dir = properties["model_dir"]
        self.manifest = context.manifest
        self.gpu = properties["gpu_id"]

    @abstractmethod
    def inference(self, data: Any) -> Any:
        """The answers to a batch."""

    def ping(self) -> Any:
        """Whether the model is well: raises if not."""
        return None

    def signature(self) -> Any:
        """What the model takes and gives, None if nobody has said."""
        return self.signature_

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch."""
        self.context = context
        return self.inference(data)


class SingleNodeService(ModelService):
    """Inference in three steps, of which `_inference` must be defined."""

    def inference(self, data: Any) -> Any:
        """Preprocess, infer, postprocess."""
        return self._postprocess(self._inference(self._preprocess(data)))

    @abstractmethod
    def _inference(self, data: Any) -> Any:
        """The model's output."""

    def _preprocess(self, data: Any) -> Any:
        """The model's input; the batch as it is unless overridden."""
        return data

    def _postprocess(self, data: Any) -> Any:
        """The answers; the model's output as it is unless overridden."""
        return data
