"""The page on monitoring, checked against what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from modelserver.settings.table import Settings, rows
from modelserver.telemetry.definitions import load_definitions
from modelserver.telemetry.latencies import DEFINITIONS

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
PAGE = (FOLDER / "README.md").read_text()


def test_every_alert_is_told() -> None:
    alerts = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    names = [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]
    assert [name for name in names if name not in PAGE.partition("## Alerts")[2]] == []


def test_every_metric_is_told() -> None:
    """Those of the machine by the beginning of their names."""
    default = Settings().metrics_config
    found = load_definitions(default, default)
    names = [definition.name for definition in (*found.server, *found.model, *DEFINITIONS)]
    told = ("CPU", "Memory", "Disk", "GPU")
    assert [name for name in names if f"`{name}`" not in PAGE and not name.startswith(told)] == []


def test_every_key_exists() -> None:
    keys = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)=", PAGE)) | set(re.findall(r"^([a-z_]+)=", PAGE, re.MULTILINE))
    assert keys >= {"metrics_mode", "server_timing", "opentelemetry_traces"}
    assert keys <= set(rows())


def test_panels_of_the_dashboard_stand_side_by_side() -> None:
    """Each in a place of its own, within the 24 columns, with a name and a word on what it shows."""
    panels = json.loads((FOLDER / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(column, line) for column in columns for line in lines}
        assert not cells & taken
        assert columns.stop <= 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
