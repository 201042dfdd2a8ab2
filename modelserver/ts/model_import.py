"""Imports a model's own modules by their place, whatever modules of the same name the process has."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def import_from(folder: Path, name: str) -> ModuleType | None:
    """The module `name` (dotted for packages) as found in this folder alone; None if it is not there.

    It gets its own name in `sys.modules`, or an alias (`model_<name>`) if another module has that name, which libraries
    may still need. Raises whatever the import raises.
    """
    importlib.invalidate_caches()  # the files may have been unpacked a moment ago
    top, *inner = name.split(".")
    spec = PathFinder.find_spec(top, [str(folder)])
    if spec is None or not _leads_to_file(spec, inner):
        return None
    alias = _free_name(top, spec)
    if alias not in sys.modules:
        _execute(alias, spec)
    return importlib.import_module(".".join([alias, *inner]))


def _leads_to_file(spec: ModuleSpec, inner: list[str]) -> bool:
    """Whether the module at the end of the dotted path is a file; a directory of data is no module."""
    for part in inner:
        found = PathFinder.find_spec(part, _folders(spec)) if _folders(spec) else None
        if found is None:
            return False
        spec = found
    return spec.origin is not None


def _free_name(top: str, spec: ModuleSpec) -> str:
    """`top`, or an alias if the process has another module of that name."""
    name = top
    while name in sys.modules and not _same(getattr(sys.modules[name], "__spec__", None), spec):
        name = f"model_{name}"
    return name


def _same(loaded: ModuleSpec | None, found: ModuleSpec) -> bool:
    return loaded is not None and loaded.origin == found.origin and _folders(loaded) == _folders(found)


def _folders(spec: ModuleSpec) -> list[str]:
    return list(spec.submodule_search_locations or ())


def _execute(name: str, found: ModuleSpec) -> None:
    """Import what `found` describes under `name`, as the import statement would."""
    spec = _renamed(name, found)
    module = module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is None:  # a package without __init__.py
        return
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def _renamed(name: str, found: ModuleSpec) -> ModuleSpec:
    if found.origin is None:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = _folders(found)
        return spec
    located = spec_from_file_location(name, found.origin, submodule_search_locations=_folders(found) or None)
    if located is None:
        raise ImportError(f"{found.origin} is not a Python module")
    return located
