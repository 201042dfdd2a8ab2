"""What a handler's source offers a server to call, found without importing it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

ENTRY: Final = "handle"

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_NEEDED: Final = ("handle", "initialize")


class NoEntry(Exception):
    """The source has nothing that a server could call; the text says what is there instead."""


@dataclass(slots=True)
class _Names:
    """What the top level of a module binds."""

    functions: dict[str, _Function] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)  # assigned, imported
    unknown: bool = False  # `from x import *`


def find_entry(source: bytes, function: str = "") -> str:
    """The entry point in words: `function handle`, `class H`. Raises SyntaxError, ValueError, NoEntry.

    `function` is what the handler names behind a colon, "" for nothing.
    """
    names = _names(_parse(source))
    wanted = function or ENTRY
    if wanted in names.classes:
        raise NoEntry(f"{wanted} is a class, where a function is called for")
    if wanted in names.functions:
        _check_parameters(names.functions[wanted], bound=False)
        return f"function {wanted}"
    if wanted in names.others or names.unknown:
        return f"function {wanted}"
    return _only_class(names, wanted)


def find_classes(source: bytes) -> list[str]:
    """The classes that a module defines. Raises SyntaxError, ValueError."""
    return list(_names(_parse(source)).classes)


def find_imports(source: bytes) -> set[str]:
    """The top-level names of the modules that a source imports anywhere. Raises SyntaxError, ValueError."""
    found: set[str] = set()
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the style of the source
        return ast.parse(source)


def _only_class(names: _Names, wanted: str) -> str:
    if not names.classes:
        raise NoEntry(f"there is neither a function {wanted} nor a class")
    if len(names.classes) > 1:
        listed = ", ".join(names.classes)
        raise NoEntry(f"there is no function {wanted}, and of several classes ({listed}) none can be chosen")
    ((name, cls),) = names.classes.items()
    if not _inherits(cls):
        members = _members(cls)
        for method in _NEEDED:
            if method not in members and "__getattr__" not in members:
                raise NoEntry(f"class {name} has no method {method}")
    for statement in cls.body:
        if isinstance(statement, _Function) and statement.name == ENTRY:
            _check_parameters(statement, bound=True)
    return f"class {name}"


def _inherits(cls: ast.ClassDef) -> bool:
    """Whether the class may have methods that its own source does not show."""
    bases = [ast.unparse(base) for base in cls.bases]
    return bool(cls.keywords or cls.decorator_list) or any(base not in ("object", "ABC", "abc.ABC") for base in bases)


def _members(cls: ast.ClassDef) -> set[str]:
    """The attributes of a class: of its body, and of `self`."""
    found = set(_bound_in(cls.body))
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def _bound_in(body: list[ast.stmt]) -> Iterator[str]:
    names = _names(ast.Module(body, []))
    yield from (*names.functions, *names.classes, *names.others)


def _check_parameters(function: _Function, *, bound: bool) -> None:
    """Raises NoEntry unless the function can be called with data and context."""
    if function.decorator_list:
        return  # what is called may have other parameters
    given = 3 if bound else 2
    parameters = function.args
    most = len(parameters.posonlyargs) + len(parameters.args)
    least = most - len(parameters.defaults)
    required = [
        name for name, default in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True) if not default
    ]
    if least > given or (most < given and not parameters.vararg) or required:
        signature = f"{function.name}({ast.unparse(parameters)})"
        raise NoEntry(f"{signature} in line {function.lineno} cannot be called with data and context")


def _names(module: ast.Module) -> _Names:
    names = _Names(others=set(_assigned(module)))
    for node in _top_level(module.body):
        if isinstance(node, _Function):
            names.functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            names.classes[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.unknown |= any(alias.name == "*" for alias in node.names)
            names.others.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return names


def _assigned(node: ast.AST) -> Iterator[str]:
    """The names that are bound by anything but `def`, `class` and `import`, outside of functions and classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif not isinstance(child, _Function | ast.ClassDef | ast.Lambda):
            yield from _assigned(child)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, and those inside of `if`, `try`, `with`, loops and `match`."""
    for node in body:
        yield node
        if isinstance(node, _Function | ast.ClassDef):
            continue
        yield from _top_level([child for name in ("body", "orelse", "finalbody") for child in getattr(node, name, ())])
        for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _top_level(branch.body)
