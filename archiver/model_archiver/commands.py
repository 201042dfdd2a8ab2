"""`torch-model-archiver inspect` and `torch-model-archiver verify`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from model_archiver.content import Unreadable
from model_archiver.finding import ERROR, Finding
from model_archiver.inspection import inspect
from model_archiver.manifest_file import BadManifest
from model_archiver.verification import verify

_FORMS: Final = {"mar": "model archive (zip)", "tar.gz": "model archive (tar.gz)", "directory": "model directory"}


def run_command(arguments: Sequence[str]) -> int:
    """The exit status of `<command> ARCHIVE...`: 0, 1 if an archive is not in order, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    command: Callable[[list[Path], bool], int] = options.run
    return command(options.archives, options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torch-model-archiver")
    commands = parser.add_subparsers(required=True)
    for name, run, text in (
        ("inspect", _inspect, "Show what is in model archives, without loading them."),
        ("verify", _verify, "Check whether a server can load model archives, without loading them."),
    ):
        command = commands.add_parser(name, description=text, help=text)
        command.add_argument("archives", metavar="ARCHIVE", nargs="+", type=Path, help=".mar, .tar.gz, or directory")
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.set_defaults(run=run)
    return parser


def _verify(archives: list[Path], as_json: bool) -> int:
    found = {path: verify(path) for path in archives}
    if as_json:
        print(json.dumps([_as_document(path, findings) for path, findings in found.items()], indent=2))
    else:
        print("\n".join(line for path, findings in found.items() for line in _verdict(path, findings)))
    return int(any(finding.level == ERROR for findings in found.values() for finding in findings))


def _as_document(path: Path, findings: list[Finding]) -> dict[str, Any]:
    in_order = not any(finding.level == ERROR for finding in findings)
    return {"archive": str(path), "ok": in_order, "findings": [asdict(finding) for finding in findings]}


def _verdict(path: Path, findings: list[Finding]) -> Iterator[str]:
    """What is broken comes first."""
    if not any(finding.level == ERROR for finding in findings):
        yield f"{path}: ok"
    for finding in findings:
        yield f"{path}: {finding.level}: {finding}"


def _inspect(archives: list[Path], as_json: bool) -> int:
    documents, failed = [], False
    for path in archives:
        try:
            documents.append(inspect(path))
        # Also what the readers of the standard library raise on damaged archives.
        except Exception as error:
            reason = str(error) if isinstance(error, Unreadable | BadManifest) else f"damaged: {error}"
            place = "MAR-INF/MANIFEST.json: " if isinstance(error, BadManifest) else ""
            print(f"{path}: {place}{reason}", file=sys.stderr)
            failed = True
    if as_json:
        print(json.dumps(documents, indent=2, default=str))
    elif documents:
        print("\n\n".join("\n".join(_lines(document)) for document in documents))
    return int(failed)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    packed = f", {_bytes(found['packed_bytes'])} packed" if found["packed_bytes"] is not None else ""
    count = len(found["files"])
    yield f"{found['archive']}: {_FORMS[found['form']]}, {count} files, {_bytes(found['unpacked_bytes'])}{packed}"
    for name, text in _facts(found):
        if text:
            yield f"  {name:<14}{text}"
    yield "  files"
    yield from (f"  {file['bytes']:>12}  {file['name']}" for file in found["files"])


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    manifest = found["manifest"]
    if manifest is None:
        yield "manifest", "none"
    else:
        model = manifest.get("model", {})
        yield "model", f"{model.get('modelName')}, version {model.get('modelVersion', '1.0')}"
        yield "runtime", manifest.get("runtime", "python")
        yield "made", f"{manifest.get('createdOn')}, archiver {manifest.get('archiverVersion')}"
    yield "handler", _named(found["handler"], "entry")
    yield "weights", _named(found["serialized_file"], "kind")
    yield "model file", _named(found["model_file"], "classes")
    yield "requirements", ", ".join(found["requirements"] or ())
    yield "config", json.dumps(found["config"], default=str) if found["config"] else ""
    yield "imports", ", ".join(found["imports"])
    yield "python", ", ".join(found["python"])
    yield "torch", ", ".join(found["torch"])


def _named(found: dict[str, Any] | None, detail: str) -> str:
    if found is None:
        return ""
    told = found[detail]
    told = f"class {', '.join(told)}" if isinstance(told, list) else told
    return f"{found['name']}: {told}" if told else found["name"]


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
