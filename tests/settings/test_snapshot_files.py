"""Files of saved configurations: names, text, origin, and which one is the newest."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import javaproperties
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.settings.properties import parse_properties
from modelserver.settings.snapshot_files import (
    CHANGE,
    SHUTDOWN,
    STARTUP,
    Origin,
    document,
    file_name,
    find_saved,
    in_order,
    is_partial,
    moment_of,
    partial_name,
    read_origin,
)

MOMENT = datetime(2026, 11, 20, 7, 21, 48, 633_999)
REAL = Path(__file__).parent / "snapshots"  # written by TorchServe


def test_the_name_of_a_file() -> None:
    assert file_name(MOMENT, STARTUP) == "20261120072148633-startup.cfg"
    assert moment_of("20261120072148633-startup.cfg") == MOMENT.replace(microsecond=633_000)
    assert moment_of("20261320072148633-startup.cfg") is None, "there is no month 13"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "2026112007214863-startup.cfg", "20261120072148633-other.cfg", "20261120072148633-startup.cfg~"],
)
def test_other_names(name: str) -> None:
    assert in_order([name]) == []
    assert not is_partial(name)


def test_the_order_is_that_of_the_names() -> None:
    names = [file_name(MOMENT, kind) for kind in (SHUTDOWN, STARTUP, CHANGE)] + ["20251231235959999-shutdown.cfg"]
    assert [name[-12:-4] for name in in_order(names)] == ["shutdown", "-startup", "snapshot", "shutdown"]


def test_the_newest_file_and_what_is_skipped(tmp_path: Path) -> None:
    assert find_saved(tmp_path / "nowhere").newest is None
    for name in ("20261120072148633-startup.cfg", "20261120072148634-shutdown.cfg", "notes.txt", "20990101.cfg"):
        (tmp_path / name).write_text("a=b")
    (tmp_path / "20261120072148635-shutdown.cfg").touch()
    (tmp_path / "20261120072148636-snapshot.cfg").mkdir()
    (tmp_path / "20261120072148637-snapshot.cfg").symlink_to("nowhere")
    (tmp_path / partial_name("20261120072148638-snapshot.cfg")).write_text("a=b")
    found = find_saved(tmp_path)
    assert found.newest == tmp_path / "20261120072148634-shutdown.cfg"
    assert found.skipped == (
        "20261120072148635-shutdown.cfg",
        "20261120072148636-snapshot.cfg",
        "20261120072148637-snapshot.cfg",
        "20990101.cfg",
        "notes.txt",
    )


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    assert find_saved(tmp_path / "config").newest is None


KEYS = st.text(min_size=1).filter(lambda text: not re.search("[\ud800-\udfff]", text))
TEXTS = st.text().filter(lambda text: "$$" not in text and not re.search("[\ud800-\udfff]", text))


@given(st.dictionaries(KEYS, TEXTS))
def test_what_is_written_is_read_by_everybody(properties: dict[str, str]) -> None:
    content = document(properties, MOMENT, "0.12.0")
    assert javaproperties.loads(content) == properties
    assert {key: given.text for key, given in parse_properties(content, "f", {}).items()} == properties
    assert content.isascii()


def test_the_first_lines(tmp_path: Path) -> None:
    content = document({"load_models": "a=a.mar"}, MOMENT, "0.12.0").decode()
    assert re.fullmatch(
        r"#Saving snapshot\n#\w{3} Nov 20 07:21:48 .*2026\n#Written by modelserver 0\.12\.0\nload_models=a\\=a\.mar\n",
        content,
    )


def test_who_has_written_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(document({}, MOMENT, "0.12.0"))
    assert read_origin(mine) is Origin.OWN
    assert all(read_origin(file) is Origin.TORCHSERVE for file in REAL.iterdir())
    mine.write_text("model_snapshot={}\n#Saving snapshot\n")
    assert read_origin(mine) is Origin.USER
    mine.write_bytes(b"")
    assert read_origin(mine) is Origin.USER
    assert read_origin(tmp_path / "gone") is Origin.USER
