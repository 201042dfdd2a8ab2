"""The picture in docs/architecture.md, checked: imports point down, and the frontend never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Room -> rooms it may import. `ts` is the handler-facing package that lives in modelserver/ts.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "scratch": set(),
    "allocator": set(),
    "descriptors": set(),
    "identity": {"settings", "errors"},
    "process_group": set(),
    "wire": set(),
    "oip": {"wire"},
    "settings": {"errors"},
    "archives": {"settings", "errors", "scratch"},
    "logconfig": {"settings"},
    "telemetry": {"logconfig", "settings", "errors"},
    "engine": {"errors", "wire", "archives", "settings"},
    "pool": {"wire", "errors", "settings", "scratch", "process_group", "allocator"},
    "ts": {"wire", "oip"},
    "worker": {"wire", "oip", "ts", "scratch", "process_group", "allocator"},
    "snapshots": {"engine", "settings", "errors"},
    "dialect": {"engine", "errors"},
    "rest": {"dialect", "engine", "telemetry", "settings", "errors", "wire"},
    "rpc": {"dialect", "engine", "telemetry", "settings", "errors", "wire"},
    "server": {
        "engine",
        "pool",
        "rest",
        "rpc",
        "snapshots",
        "telemetry",
        "archives",
        "settings",
        "errors",
        "wire",
        "scratch",
        "descriptors",
        "identity",
        "ending",
    },
    "pidfile": set(),
    "ending": set(),
    "checkup": {
        "archiver",
        "logconfig",
        "telemetry",
        "settings",
        "errors",
        "archives",
        "engine",
        "pool",
        "identity",
        "wire",
        "scratch",
        "pidfile",
    },
    "cli": {"settings", "errors", "pidfile", "tryout", "checkup"},
    "tryout": {"ending", "rest", "engine", "archives", "worker", "settings", "errors", "wire", "ts"},
    "archiver": set(),
}

# Doors: modules of `ts` whose names scripts and tests import, and which lead into other rooms.
DOORS: dict[str, set[str]] = {
    "modelserver/ts/arg_parser.py": {"settings"},
    "modelserver/ts/llm_launcher.py": {"archiver"},
    "modelserver/ts/model_server.py": {"cli"},
}

FRONTEND = [
    "cli",
    "checkup",
    "pidfile",
    "ending",
    "server",
    "errors",
    "scratch",
    "descriptors",
    "identity",
    "process_group",
    "settings",
    "archives",
    "engine",
    "pool",
    "wire",
    "dialect",
    "rest",
    "rpc",
    "snapshots",
    "logconfig",
    "telemetry",
]


def room_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[0] == "archiver":
        return "archiver"
    return relative.parts[1].removesuffix(".py")


def sources() -> list[Path]:
    return sorted([*(ROOT / "modelserver").rglob("*.py"), *(ROOT / "archiver").rglob("*.py")])


def imports(path: Path) -> Iterator[str]:
    """Every absolute name a module imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> Iterator[str]:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "modelserver" and len(parts) > 1:
            yield parts[1]
        elif parts[0] in ("ts", "model_archiver", "workflow_archiver"):
            yield "ts" if parts[0] == "ts" else "archiver"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not list(imported_rooms(path))
        return
    assert room in MAY_IMPORT, f"room {room} is not in the picture"
    allowed = MAY_IMPORT[room] | {room} | DOORS.get(str(path.relative_to(ROOT)), set())
    wrong = {other for other in imported_rooms(path) if other not in allowed}
    assert not wrong, f"{room} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_ts_has_one_import_name(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("modelserver.ts")]


def test_the_frontend_never_imports_torch() -> None:
    """Importing every frontend module brings in neither torch nor numpy nor the handler-facing package."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "modelserver").rglob("*.py")
        if room_of(path) in FRONTEND
    )
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
heavy = sorted({{"torch", "numpy", "PIL", "ts"}} & set(sys.modules))
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_modelserver_is_light() -> None:
    script = "import sys; before = set(sys.modules); import modelserver; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 2


def test_every_room_is_in_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {room_of(path) for path in sources()} - {"__init__"}
    missing = [room for room in rooms if f"`modelserver/{room}" not in page and f"`{room}/`" not in page]
    assert not missing
