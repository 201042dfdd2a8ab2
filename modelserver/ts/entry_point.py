"""From the name of a handler to the functions that load the model and answer batches."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import CoroutineType, ModuleType
from typing import Any, NamedTuple, cast

from ts.context import Context
from ts.model_import import import_from
from ts.utils.util import list_classes_from_module

logger = logging.getLogger(__name__)

Handle = Callable[[list[dict[str, Any]], Context], Any]  # from rows to a list with an element for each
Run = Callable[["CoroutineType[Any, Any, Any]"], None]  # what becomes of loading that is a coroutine


class HandlerMissing(Exception):
    """No handler is named, or none of that name exists."""


class HandlerBroken(Exception):
    """The handler exists and imports, but offers no usable entry point; `__cause__` says why."""


def drop(loading: CoroutineType[Any, Any, Any]) -> None:
    """There is no event loop to run it."""
    loading.close()
    logger.warning("%s did not run: set asyncCommunication: true in the model's configuration", loading.__qualname__)


def _finish(loading: Any, run: Run) -> None:
    if inspect.iscoroutine(loading):
        run(loading)


class Function(NamedTuple):
    """A module's function, which loads the model when called without data."""

    function: Handle

    def load(self, context: Context, run: Run = drop) -> Handle:
        """Load the model. Returns what answers batches."""
        _finish(self.function(cast(Any, None), context), run)
        return self.function


class Class(NamedTuple):
    """A module's only class."""

    cls: type[Any]

    def load(self, context: Context, run: Run = drop) -> Handle:
        """Make the handler and load its model. Returns what answers batches. Raises `HandlerBroken`."""
        instance = self.cls()
        if not hasattr(instance, "handle"):
            raise HandlerBroken from ValueError(f"Expect handle method in class {self.cls}")
        if not hasattr(instance, "initialize"):
            raise HandlerBroken from AttributeError(f"{self.cls.__name__!r} object has no attribute 'initialize'")
        _finish(instance.initialize(context), run)
        handle: Handle = instance.handle  # now, because `initialize` may have replaced it
        return handle


def find_handler(spec: str, model_dir: Path) -> Function | Class:
    """Import what `spec` (`file.py`, `module`, `package.module`, `.../file.py:function`) names.

    The model's own file comes first, even if a module of its name is imported already; then the import path, then the
    built-in handlers. Raises `HandlerMissing`, `HandlerBroken`, and whatever the import raises.
    """
    if not spec:
        raise HandlerMissing("handler is not defined")
    file_part, _, function = spec.partition(":")
    module = _import_handler(spec, file_part.removesuffix(".py").rpartition("/")[2], model_dir)
    entry = getattr(module, function or "handle", None)
    if entry is not None:
        if inspect.isclass(entry) or not callable(entry):
            raise HandlerBroken from TypeError(f"entry point {spec!r} is {entry!r}, not a function")
        return Function(entry)
    classes = list_classes_from_module(module)
    if len(classes) != 1:
        text = f"Expected only one class in custom service code or a function entry point {classes}"
        raise HandlerBroken from ValueError(text)
    return Class(classes[0])


def find_envelope(name: str) -> type[Any]:
    """The class of the built-in request envelope `name`. Raises `HandlerMissing`."""
    module_name = f"ts.torch_handler.request_envelope.{name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not _is_about(error, module_name):
            raise
        raise HandlerMissing(f"no request envelope {name!r}") from error
    return list_classes_from_module(module)[0]


def _import_handler(spec: str, name: str, model_dir: Path) -> ModuleType:
    if not all(name.split(".")):
        raise HandlerMissing(f"{spec!r} does not name a handler")
    module = import_from(model_dir, name)
    if module is not None:
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_about(error, name):
            raise
        return _import_built_in(spec)


def _import_built_in(spec: str) -> ModuleType:
    name = f"ts.torch_handler.{spec}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_about(error, name):
            raise
        raise HandlerMissing(
            f"no module {spec!r} in the archive, on the import path or among the built-in handlers"
        ) from error


def _is_about(error: ModuleNotFoundError, name: str) -> bool:
    """Whether the module `name` itself (or a package above it) is missing, rather than something that it imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))
