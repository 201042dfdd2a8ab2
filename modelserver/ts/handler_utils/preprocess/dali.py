"""Pipelines of NVIDIA DALI; the library is imported when one is made."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def get_dali_pipeline(ctx: Any) -> Any:
    """The pipeline that the section `dali` of the model's YAML describes.

    `pipeline_file` names a serialised pipeline of the model directory; without it images are decoded, resized, cropped
    and normalised as `ImageClassifier` does. Raises `ValueError` without a section, `RuntimeError` without the file.
    """
    section = ctx.model_yaml_config.get("dali")
    if not section:
        raise ValueError(f"{ctx.model_name} has no dali config in model config yaml file")
    arguments = {
        "batch_size": section["batch_size"],
        "num_threads": section["num_threads"],
        "device_id": section["device_id"],
        "seed": section["seed"],
    }
    name = section.get("pipeline_file")
    if not name:
        return _make_default(arguments)
    path = Path(ctx.system_properties["model_dir"], name)
    if not path.is_file():
        raise RuntimeError("Missing dali pipeline file.")
    pipeline = importlib.import_module("nvidia.dali.pipeline").Pipeline
    return pipeline.deserialize(filename=str(path), **arguments)


def _make_default(arguments: dict[str, Any]) -> Any:
    """From encoded images under the name `source` to normalised tensors of 3 x 224 x 224."""
    functions, types = importlib.import_module("nvidia.dali.fn"), importlib.import_module("nvidia.dali.types")
    pipeline = importlib.import_module("nvidia.dali.pipeline").Pipeline(**arguments)
    with pipeline:
        encoded = functions.external_source(name="source", device="cpu")
        images = functions.decoders.image(encoded, device="mixed", output_type=types.RGB)
        resized = functions.resize(images, resize_shorter=256)
        normalised = functions.crop_mirror_normalize(
            resized,
            crop=(224, 224),
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
            std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
        )
        pipeline.set_outputs(normalised)
    return pipeline
