"""The flags of `modelserver run-handler`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  modelserver run-handler digits.mar --input 7.png
  modelserver run-handler ./model_dir --input a.json b.json      one batch of two requests
  modelserver run-handler m.mar --field image=cat.jpg --field data=@hello
                                                                 one request with two fields
A breakpoint() in the handler stops there; the exit status is 0 if every request is answered with less than 400.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run, and on what."""

    archive: Path
    inputs: tuple[Path, ...]
    fields: tuple[str, ...]  # name=file or name=@text, of one request
    content_type: str | None  # of every input; None: by the name of the file
    headers: tuple[str, ...]  # name: value
    protocol: str  # torchserve, v1, v2
    explain: bool
    describe: bool
    batch_size: int | None  # None: all requests in one batch
    repeat: int
    output: Path | None  # directory for the bodies
    pdb: bool
    model_name: str | None
    handler: str | None
    envelope: str | None
    gpu: int | None
    ts_config: str | None


def parse(arguments: Sequence[str]) -> Options:
    """Read the flags. Prints and exits on `--help` (0) and on misuse (2)."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    if not (given["inputs"] or given["fields"] or given["describe"]):
        parser.error("nothing to send: give --input FILE..., --field NAME=FILE or --describe")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelserver run-handler",
        description="Load a model in this process and call its handler as a worker does, so that debuggers work.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_requests(parser)
    _add_model(parser)
    return parser


def _add_requests(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("archive", type=Path, help="model archive (.mar, .tar.gz, .tgz) or model directory")
    add(
        "--input",
        dest="inputs",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        help="body of a request; several files are several requests",
    )
    add(
        "--field",
        dest="fields",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="field of one more request, as of a form; NAME=@TEXT for a text",
    )
    add("--content-type", metavar="TYPE", help="of every input; '' for none (default: by the name of the file)")
    add("--header", dest="headers", metavar="'NAME: VALUE'", action="append", default=[], help="of every request")
    add(
        "--protocol",
        choices=("torchserve", "v1", "v2"),
        default="torchserve",
        help="what the requests are: /predictions, or of KServe's protocols (default: %(default)s)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--explain", action="store_true", help="ask for explanations instead of predictions")
    kind.add_argument("--describe", action="store_true", help="ask for the handler's description of itself")
    add("--batch-size", metavar="N", type=_count, help="requests of a batch (default: all in one)")
    add("--repeat", metavar="N", type=_count, default=1, help="send everything N times (default: %(default)s)")
    add("--pdb", action="store_true", help="open the debugger where the handler fails")
    add("--output", metavar="DIR", type=Path, help="write the bodies of the answers into files of this directory")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model-name", help="as in a registration (default: the archive's)")
    add("--handler", help="as in a registration (default: the archive's)")
    add("--envelope", metavar="NAME", help="request envelope (default: service_envelope of the configuration)")
    add("--gpu", metavar="ID", type=int, help="GPU to load the model on (default: the CPU)")
    add("--ts-config", metavar="FILE", help="configuration file (default: the one a server started here would read)")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)
