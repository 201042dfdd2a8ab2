"""Which models a `load_models` text names."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.settings.startup import InitialModel, default_name, initial_models


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("noop.mar", [InitialModel(None, "noop.mar", "noop")]),
        ("a=x.mar,b=y.mar", [InitialModel("a", "x.mar", "x"), InitialModel("b", "y.mar", "y")]),
        (" a = x.mar , y.mar ,", [InitialModel("a", "x.mar", "x"), InitialModel(None, "y.mar", "y")]),
        ("=x.mar", [InitialModel(None, "x.mar", "x")]),
        ("name=", []),
        ("standalone", [InitialModel(None, "standalone", "standalone")]),
        ("https://h/d/a.mar?sig=1", [InitialModel(None, "https://h/d/a.mar?sig=1", "a")]),
        ("n=https://h/a.mar?sig=1", [InitialModel("n", "https://h/a.mar?sig=1", "a")]),
    ],
)
def test_elements(text: str, expected: list[InitialModel], tmp_path: Path) -> None:
    assert initial_models(text, tmp_path) == expected


@pytest.mark.parametrize("word", ["all", "ALL", " All "])
def test_all_lists_the_store(word: str, tmp_path: Path) -> None:
    for name in ("b.mar", "a.tgz", "c.tar.gz", "d.model", "skip.zip", ".hidden.mar"):
        (tmp_path / name).touch()
    (tmp_path / "dirm").mkdir()
    (tmp_path / ".git").mkdir()
    names = [model.url for model in initial_models(word, tmp_path)]
    assert names == ["a.tgz", "b.mar", "c.tar.gz", "d.model", "dirm"]


def test_all_is_a_keyword_only_alone(tmp_path: Path) -> None:
    assert [model.url for model in initial_models("all,x.mar", tmp_path)] == ["all", "x.mar"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("no-name.v1.mar", "no_name_v1"),
        ("tarry.tar.gz", "tarry_tar_gz"),
        ("skipme.tgz", "skipme_tgz"),
        ("dirm", "dirm"),
        ("/abs/my dir/", "my_dir"),
        ("/abs/dir/m.mar", "m"),
        ("_x.mar", "_x"),
        ("é.mar", "_"),
    ],
)
def test_default_names(url: str, name: str) -> None:
    assert default_name(url) == name
