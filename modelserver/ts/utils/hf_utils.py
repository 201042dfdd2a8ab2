"""Models from the Hugging Face hub."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

_WANTED = ["*.json", "*.pt", "*.bin", "*.txt", "*.model", "*.pth", "*.safetensors", "original/*"]


def download_model(
    model_id: str, revision: str = "main", model_path: str | Path = ".cache", use_auth_token: bool | str = True
) -> Path:
    """Folder of the files of a model, fetched below `model_path` unless they are there. Needs `huggingface_hub`."""
    hub = importlib.import_module("huggingface_hub")
    token = use_auth_token if isinstance(use_auth_token, str) else os.environ.get("HUGGING_FACE_HUB_TOKEN") or None
    folder = hub.snapshot_download(
        model_id,
        revision=revision,
        cache_dir=str(model_path),
        allow_patterns=_WANTED,
        token=token if use_auth_token else False,
    )
    return Path(folder)


def main() -> None:
    """Fetch the model that the flags name and print its folder."""
    parser = argparse.ArgumentParser(description="Fetch a model from the Hugging Face hub")
    parser.add_argument("--model_id", "--model_name", required=True, help="name of the model on the hub")
    parser.add_argument("--model_path", default="model", help="folder to keep it in")
    parser.add_argument("--revision", default="main", help="branch, tag or commit")
    parser.add_argument("--use_auth_token", default=True, help="token of the hub; by default the stored one")
    arguments = parser.parse_args()
    print(download_model(arguments.model_id, arguments.revision, arguments.model_path, arguments.use_auth_token))


if __name__ == "__main__":
    main()
