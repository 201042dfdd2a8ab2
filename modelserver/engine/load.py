"""What a worker is told to load."""

from __future__ import annotations

from modelserver.archives.archive import Archive
from modelserver.settings.model_options import ModelOptions
from modelserver.settings.open_inference import Declaration, DeclaredTensor
from modelserver.settings.table import Settings
from modelserver.wire.frames import Load, OpenInference, TensorSpec


def load_frame(archive: Archive, options: ModelOptions, settings: Settings, gpu: int | None) -> Load:
    """The frame for a model on this GPU, None for the CPU."""
    return Load(
        model_name=archive.model_name,
        model_dir=str(archive.directory),
        handler=archive.handler,
        batch_size=max(1, options.batch_size),
        gpu=gpu,
        envelope=settings.service_envelope,
        limit_max_image_pixels=settings.limit_max_image_pixels,
        max_response_size=settings.max_response_size,
        metrics_config=str(settings.metrics_config),
        model_version=archive.version,
        max_request_size=settings.max_request_size,
        open_inference=_declared(options.open_inference),
        continuous=options.continuous_batching and not options.async_communication,
    )


def _declared(declaration: Declaration) -> OpenInference:
    """What a model declares, as its workers are told it."""

    def specs(tensors: tuple[DeclaredTensor, ...]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape, tensor.optional) for tensor in tensors)

    rows = declaration.mapping == "rows"
    return OpenInference(rows, specs(declaration.inputs), specs(declaration.outputs))
