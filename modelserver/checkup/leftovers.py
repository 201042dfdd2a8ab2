"""What else is installed that takes the place of our files: TorchServe's own packages, or what is left of them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelserver.checkup.finding import Finding, error, warning

# Distribution of TorchServe's -> what it brings that is ours too.
RIVALS: Final = {
    "torchserve": "the package ts and the command torchserve",
    "torchserve-nightly": "the package ts and the command torchserve",
    "torch-model-archiver": "the package model_archiver and the command torch-model-archiver",
    "torch-model-archiver-nightly": "the package model_archiver and the command torch-model-archiver",
    "torch-workflow-archiver": "the package workflow_archiver and the command torch-workflow-archiver",
    "torch-workflow-archiver-nightly": "the package workflow_archiver and the command torch-workflow-archiver",
}
_OURS: Final = ("modelserver", "ts", "model_archiver", "workflow_archiver")  # packages of our distribution
_REINSTALL: Final = "Install modelserver again: pip install --force-reinstall --no-deps modelserver"
_UNINSTALL: Final = f"Uninstall what it belongs to. {_REINSTALL}"


def examine_installation() -> Iterator[Finding]:
    """Everything, of the interpreter that runs this."""
    yield from rivals(_installed())
    own = _own()
    if own is not None:
        yield from damaged(own)
        yield from scripts(own, dict(os.environ), Path(sysconfig.get_path("scripts")))
    yield from shadowed(Path(__file__).parents[2])


def rivals(installed: Mapping[str, str]) -> Iterator[Finding]:
    """TorchServe's distributions among those installed (name -> version)."""
    for name, what in RIVALS.items():
        if name in installed:
            text = f"{name} {installed[name]} is installed: it brings {what}, as modelserver does"
            yield error("installation", text, f"Run pip uninstall -y {name}. {_REINSTALL}")


def damaged(own: Distribution) -> Iterator[Finding]:
    """Files of ours that are gone, or that another installation has written over."""
    gone, changed = [], []
    for file in own.files or ():
        if file.suffix != ".py" or file.hash is None or file.parts[0] not in _OURS:
            continue
        try:
            content = Path(str(file.locate())).read_bytes()
        except OSError:
            gone.append(str(file))
            continue
        digest = hashlib.new(file.hash.mode, content).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(str(file))
    for names, what in ((gone, "is gone: another package has been uninstalled over it"), (changed, "is not ours")):
        if names:
            more = f" (and {len(names) - 1} more files)" if len(names) > 1 else ""
            yield error("installation", f"{names[0]} {what}{more}", _REINSTALL)


def scripts(own: Distribution, environ: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Commands of ours that lead elsewhere; `folder` is where this interpreter's are."""
    for entry in own.entry_points.select(group="console_scripts"):
        found = shutil.which(entry.name, path=environ.get("PATH"))
        if found is None:
            continue
        if Path(found).parent.resolve() != folder.resolve():
            text = f"PATH finds this {entry.name}, not the one in {folder}"
            yield warning(found, text, "Put the directory of the one that you want to run first.")
        elif not _leads_to(Path(found), entry.value.partition(":")[0]):
            text = f"the command {entry.name} is not modelserver's"
            yield error(found, text, _UNINSTALL)


def shadowed(root: Path) -> Iterator[Finding]:
    """Another package of the name `ts` that comes first on the search path; `root` is what contains ours."""
    spec = find_spec("ts")
    ours = (root / "ts", root / "modelserver" / "ts")
    if spec is None or spec.origin is None:
        yield error("installation", "there is no package ts", _REINSTALL)
    elif not any(Path(spec.origin).parent.resolve() == place.resolve() for place in ours):
        text = f"the package ts is not modelserver's: {Path(spec.origin).parent}"
        yield error("installation", text, _UNINSTALL)


def _leads_to(script: Path, module: str) -> bool:
    """Whether a generated script imports this module; what cannot be read as text is none of ours."""
    try:
        text = script.read_text(errors="replace")
    except OSError:
        return False
    return re.search(rf"\b{re.escape(module)}\b", text) is not None


def _installed() -> dict[str, str]:
    named = [(one.metadata["Name"], one.version) for one in distributions()]
    return {name.lower().replace("_", "-"): version for name, version in named if name}


def _own() -> Distribution | None:
    try:
        return distribution("modelserver")
    except PackageNotFoundError:  # a source tree that is not installed
        return None
