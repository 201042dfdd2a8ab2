"""The model configuration: YAML as the archive carries it, and everything that is not a mapping."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.archives.model_config import read_config


def test_without_an_entry_in_the_manifest_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "model-config.yaml").write_text("minWorkers: 1")
    assert read_config(tmp_path, None) == ({}, None)
    assert read_config(tmp_path, "") == ({}, None)


def test_the_whole_mapping_with_yaml_1_1_scalars(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mc.yaml").write_text(
        "hex: 0x20\noctal: 010\ngrouped: 1_000\nsexagesimal: 1:30\nplus: +77\nflag: yes\ntwice: 1\ntwice: 2\n"
        "handler: {nested: [1, 'a']}\n"
    )
    config, error = read_config(tmp_path, "conf/mc.yaml")
    assert error is None
    assert config == {
        "hex": 32,
        "octal": 8,
        "grouped": 1000,
        "sexagesimal": 90,
        "plus": 77,
        "flag": True,
        "twice": 2,
        "handler": {"nested": [1, "a"]},
    }


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "null\n", "{}"])
def test_an_empty_file_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert read_config(tmp_path, "c.yaml") == ({}, None)


@pytest.mark.parametrize(
    "content",
    [
        b"- a\n- b\n",
        b"just text",
        b"1: 2\n",
        b"a: 1\n---\nb: 2\n",
        b"a:\n\tb: 1\n",
        b"a: [1\n",
        b"a: !!python/object:os.system x\n",
        b'a: !!int ""\n',
        b'a: !!bool "x"\n',
        b'a: !!timestamp "x"\n',
        b"a: 2001-99-99\n",
        b"\xff\xfe\xff",
        b"? [1, 2]\n: 3\n",
        b"[" * 5_000,
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    config, error = read_config(tmp_path, "c.yaml")
    assert config == {}
    assert error is not None and error.startswith("Failed to parse model config file c.yaml: ")
    assert "\n" not in error


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for name in ("missing.yaml", "."):
        config, error = read_config(tmp_path, name)
        assert config == {}
        assert error is not None and error.startswith(f"Failed to parse model config file {name}: ")


@pytest.mark.parametrize("name", ["../outside.yaml", "a/../../outside.yaml", "{absolute}"])
def test_a_path_out_of_the_model_directory_is_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("secret: 1")
    model = tmp_path / "model"
    (model / "a").mkdir(parents=True)
    config, error = read_config(model, name.format(absolute=outside))
    assert config == {}
    assert error is not None and "out of the model directory" in error
