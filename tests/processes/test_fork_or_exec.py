"""When a worker cannot be forked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from modelserver.wire.control import Spawn
from modelserver.worker.fork_or_exec import shadowed, why_exec


def order(path: tuple[str, ...] = (), *, fork: bool = True, executable: str = "", launcher: str = "") -> Spawn:
    return Spawn(1, 1, 0, "/s", "t", "W", "/", list(path), {}, [], 0, executable, launcher.split(), fork)


def decide(order: Spawn, *, threads: int = 1, search_path: tuple[str, ...] = ()) -> str:
    return why_exec(order, modules=["json", "torch", "torch.nn", "nn.parts"], search_path=search_path, threads=threads)


def test_nothing_in_the_way_means_fork(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    assert decide(order((str(tmp_path), str(tmp_path / "missing")))) == ""


@pytest.mark.parametrize(
    ("order", "threads", "why"),
    [
        (order(fork=False), 1, "asked for"),
        (order(executable="/venv/bin/python"), 1, "runs on /venv/bin/python"),
        (order(launcher="-m launch"), 1, "started by a launcher"),
        (order(), 2, "the nursery has 2 threads"),
    ],
)
def test_reasons_of_the_order_and_of_the_nursery(order: Spawn, threads: int, why: str) -> None:
    assert decide(order, threads=threads) == why


@pytest.mark.parametrize("name", ["json.py", "json.pyc", "torch.cpython-311-x86_64-linux-gnu.so", "torch/__init__.py"])
def test_a_name_that_is_imported_already(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    path = str(tmp_path / name.removesuffix("/__init__.py"))
    assert decide(order(("/nowhere", str(tmp_path)))) == f"{path} is already imported"
    assert decide(order((str(tmp_path),)), search_path=(str(tmp_path),)) == "", "that is where the import came from"


@pytest.mark.parametrize("name", ["json.txt", "json", "torch/data.bin", "nn.py", "parts.py", "json.py.bak", "jsonx.py"])
def test_names_that_hide_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert shadowed([str(tmp_path)], ["json", "torch", "torch.nn", "nn.parts"]) == ""


class Untouched(Collection[str]):
    """Names that are asked for one by one."""

    def __contains__(self, name: object) -> bool:
        return name == "json"

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the references to all names were counted: none is shared with the nursery any more")

    def __len__(self) -> int:
        return 1


def test_names_of_modules_are_not_copied(tmp_path: Path) -> None:
    (tmp_path / "json.py").touch()
    assert shadowed([str(tmp_path)], Untouched()) == str(tmp_path / "json.py")


@pytest.mark.parametrize("name", ["shared/part/__init__.py", "shared/part.py", "shared/deep/core.py"])
def test_a_part_of_a_package_of_several_origins(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.touch()
    hidden = str(path).removesuffix("/__init__.py")
    modules = ["shared", "shared.part", "shared.deep", "shared.deep.core"]
    assert shadowed([str(tmp_path)], modules) == hidden
    assert shadowed([str(tmp_path)], ["shared", "shared.other", "part", "core"]) == ""
    assert shadowed([str(tmp_path)], ["part", "deep", "core"]) == ""
