"""The start-up dump."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.settings.banner import banner
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.table import Settings

LABELS = """Torchserve version|TS Home|Current directory|Temp directory|Metrics config path|Number of GPUs
Number of CPUs|Max heap size|Python executable|Config file|Inference address|Management address|Metrics address
Model Store|Initial Models|Log dir|Metrics dir|Netty threads|Netty client threads|Default workers per model
Blacklist Regex|Maximum Response Size|Maximum Request Size|Limit Maximum Image Pixels|Prefer direct buffer|Allowed Urls
Custom python dependency for model allowed|Enable metrics API|Metrics mode|Disable system metrics|Workflow Store
CPP log config|Model config|System metrics command|Model API enabled""".replace("\n", "|").split("|")


def lines(settings: Settings) -> dict[str, str]:
    text = banner(settings, gpus=0, cpus=2, memory_mb=6028, version="0.12.0")
    assert text.startswith("\nTorchserve version: 0.12.0\n")
    return dict(line.split(": ", 1) for line in text[1:].split("\n"))


@pytest.mark.check("cli", 23)
def test_labels_in_order() -> None:
    assert list(lines(Settings())) == LABELS


def test_defaults() -> None:
    dump = lines(Settings())
    assert dump["Max heap size"] == "6028 M"
    assert dump["Default workers per model"] == "2"
    assert dump["Allowed Urls"] == "[file://.*|http(s)?://.*]"
    assert dump["Metrics mode"] == "LOG"
    assert dump["Enable metrics API"] == "true"
    assert dump["Prefer direct buffer"] == "false"
    assert dump["Log dir"] == str(Path.cwd() / "logs")
    absent = ("Config file", "Model Store", "Initial Models", "Blacklist Regex", "Workflow Store", "CPP log config")
    assert {dump[label] for label in (*absent, "Model config")} == {"N/A"}


def test_given_values_are_shown_as_given(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    (tmp_path / "c.cfg").write_text(
        'model_store=link\nload_models=a.mar, b.mar\nallowed_urls=x, y\nenable_metrics_api=yes\nmodels={"a": {}}\n'
        "inference_address=https://0.0.0.0/\nblacklist_env_vars=FOO|BAR\ndefault_workers_per_model=3\n"
    )
    dump = lines(load(parse(["--ts-config", "c.cfg"]), {}, tmp_path))
    assert dump["Model Store"] == dump["Workflow Store"] == str(tmp_path / "store")
    assert dump["Initial Models"] == "a.mar, b.mar"
    assert dump["Allowed Urls"] == "[x,  y]"
    assert dump["Enable metrics API"] == "yes"
    assert dump["Model config"] == '{"a": {}}'
    assert dump["Inference address"] == "https://0.0.0.0:443"
    assert dump["Blacklist Regex"] == "FOO|BAR"
    assert dump["Default workers per model"] == "3"
    assert dump["Config file"] == "c.cfg"
