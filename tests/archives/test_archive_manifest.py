"""Parsing of MANIFEST.json: defaults, odd values, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelserver.archives.manifest import FILE_NAME, FOLDER, Manifest, check_runtime, parse_manifest, read_manifest
from modelserver.errors import BadRequest, InvalidModel


def parse(document: Any) -> Manifest:
    return parse_manifest(json.dumps(document).encode())


def test_a_full_manifest() -> None:
    document = {
        "createdOn": "20/11/2026 07:20:47",
        "runtime": "python3",
        "model": {
            "modelName": "full",
            "serializedFile": "weights.pt",
            "handler": "h_echo.py",
            "modelFile": "model.py",
            "modelVersion": "2.0",
            "requirementsFile": "req.txt",
            "configFile": "cfg.yaml",
            "unknown": {"ignored": True},
        },
        "archiverVersion": "0.12.0",
    }
    assert parse(document) == Manifest(
        created_on="20/11/2026 07:20:47",
        archiver_version="0.12.0",
        runtime="python3",
        model_name="full",
        model_version="2.0",
        handler="h_echo.py",
        serialized_file="weights.pt",
        model_file="model.py",
        requirements_file="req.txt",
        config_file="cfg.yaml",
        raw=document,
    )


def test_an_empty_object_has_all_defaults() -> None:
    assert parse({}) == Manifest()
    assert (Manifest().runtime, Manifest().model_version, Manifest().model_name) == ("python", "1.0", None)


@pytest.mark.parametrize(
    ("text", "version"),
    [("2", "2"), ("1.10", "1.10"), ("1e3", "1e3"), ("true", "true"), ('""', ""), ("null", "1.0"), ('"x"', "x")],
)
def test_versions_are_text_as_written(text: str, version: str) -> None:
    assert parse_manifest(f'{{"model": {{"modelVersion": {text}}}}}'.encode()).model_version == version


def test_numbers_stay_numbers_in_the_raw_document() -> None:
    assert parse({"model": {"modelVersion": 2}}).raw == {"model": {"modelVersion": 2}}


def test_null_members_are_absent() -> None:
    manifest = parse({"createdOn": None, "model": {"modelName": None, "handler": None}})
    assert (manifest.created_on, manifest.model_name, manifest.handler) == (None, None, None)


@pytest.mark.parametrize("runtime", ["ruby", None, 5, "Python", ["python"]])
def test_a_runtime_that_does_not_exist_is_none(runtime: object) -> None:
    assert parse({"runtime": runtime}).runtime is None


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_manifest(b'\xef\xbb\xbf{"model": {"modelName": "m"}}').model_name == "m"


@pytest.mark.parametrize("document", [b"", b" \n\t", b"null", b'{"model": null}'])
def test_a_missing_model_entry(document: bytes) -> None:
    with pytest.raises(InvalidModel, match=r"^Missing Model entry in manifest file\.$"):
        parse_manifest(document)


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b"[1]",
        b'"text"',
        b"5",
        b"{",
        b'{"model": []}',
        b'{"model": "x"}',
        b'{"model": {"modelName": ["x"]}}',
        b'{"model": {"modelVersion": {}}}',
        b'{"createdOn": []}',
        b"{} trailing",
        b"\xff\xfe{}",
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest(document: bytes) -> None:
    with pytest.raises(InvalidModel, match=r"^Failed to parse signature\.json\.$"):
        parse_manifest(document)


def test_no_file_is_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    assert read_manifest(tmp_path) is None


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / FOLDER / FILE_NAME).mkdir(parents=True)
    with pytest.raises(InvalidModel):
        read_manifest(tmp_path)


def test_runtimes_of_registrations() -> None:
    for runtime in ("python", "python3", "LSP"):
        check_runtime(runtime)
    with pytest.raises(BadRequest, match=r"^Invalid RuntimeType value: PYTHON$"):
        check_runtime("PYTHON")


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (b"{", "MAR-INF/MANIFEST.json is not JSON: Expecting property name"),
        (b"\xff\xfe{}", "MAR-INF/MANIFEST.json is not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b'{"model": []}', "MAR-INF/MANIFEST.json has no JSON object as `model`"),
        (b'{"model": {"modelVersion": {}}}', "MAR-INF/MANIFEST.json has a modelVersion that is no text"),
    ],
)
def test_the_cause_says_what_is_wrong_with_it(document: bytes, detail: str) -> None:
    """The message, which clients know, names a file that nobody has seen."""
    with pytest.raises(InvalidModel) as refusal:
        parse_manifest(document)
    assert refusal.value.certificate is not None
    assert (refusal.value.certificate.cause, refusal.value.certificate.detail[: len(detail)]) == ("bad archive", detail)
