"""Real archives, packed with the real archiver from handler sources written in the tests."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from model_archiver import ModelArchiver, ModelArchiverConfig

NOOP = """
def handle(data, context):
    return None if data is None else ["ok"] * len(data)
"""

ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [row.get("body", row) for row in data]
"""


def pack(
    store: Path,
    name: str,
    handler: str,
    *,
    version: str = "1.0",
    archive: str | None = None,
    config: str | None = None,
    files: Mapping[str, str] | None = None,
    requirements: str | None = None,
) -> str:
    """Write `<archive or name>.mar` into the store; returns its file name. `files` become extra files of it."""
    work = store.parent / f"packing-{archive or name}"
    work.mkdir(parents=True)
    (work / "handler.py").write_text(textwrap.dedent(handler))
    extra = []
    for file, text in (files or {}).items():
        (work / file).write_text(textwrap.dedent(text))
        extra.append(str(work / file))
    if config is not None:
        (work / "model-config.yaml").write_text(textwrap.dedent(config))
    if requirements is not None:
        (work / "requirements.txt").write_text(requirements)
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            model_name=archive or name,
            handler=str(work / "handler.py"),
            version=version,
            extra_files=",".join(extra) or None,
            export_path=str(store),
            requirements_file=str(work / "requirements.txt") if requirements is not None else None,
            config_file=str(work / "model-config.yaml") if config is not None else None,
            force=True,
        )
    )
    return f"{archive or name}.mar"
