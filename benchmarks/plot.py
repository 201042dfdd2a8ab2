"""Draws the figures: requests a second over clients, the life of a worker, memory over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import (
    IDLE,
    KILLS_KEPT,
    KILLS_SLOWEST,
    MEMORY,
    RATE,
    RECOVERY,
    REGISTER,
    SCALE,
    SCALE_FURTHER,
    Summary,
    load_figure,
)
from benchmarks.footprint import Footprint
from benchmarks.plan import Deployment, Point
from benchmarks.report import KILL_TITLES, LIFECYCLE_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (11, 12.5)  # inches
SOAK_SIZE = (11, 4)
COLUMNS = 4
BARS = (REGISTER, SCALE, SCALE_FURTHER, RECOVERY, MEMORY, IDLE, KILLS_KEPT, KILLS_SLOWEST)
BAR_TITLES = LIFECYCLE_TITLES | KILL_TITLES
RESOLUTION = 110  # dots an inch
HEADROOM = 1.15  # top of a bar chart over its highest bar, for the number on it


def draw(summary: Summary, points: Sequence[Point], titles: Mapping[str, str], path: Path) -> None:
    """One panel per model, one per figure of the life of a worker; `titles` gives servers and their order."""
    from matplotlib.figure import Figure  # slow: only who draws waits for it

    deployments = list(dict.fromkeys(point.deployment for point in points))
    colours = {server: f"C{index}" for index, server in enumerate(titles)}
    figure = Figure(figsize=SIZE, layout="constrained")
    rows = (len(deployments) + 1) // 2
    grid = figure.add_gridspec(rows + len(BARS) // COLUMNS, COLUMNS)
    for index, deployment in enumerate(deployments):
        column = 2 * (index % 2)
        axes = figure.add_subplot(grid[index // 2, column : column + 2])
        own = [point for point in points if point.deployment == deployment]
        draw_rates(axes, summary, deployment, own, titles, colours)
    for index, name in enumerate(BARS):
        row, column = divmod(index, COLUMNS)
        draw_bars(figure.add_subplot(grid[rows + row, column]), summary, name, titles, colours)
    figure.savefig(path, dpi=RESOLUTION)


def draw_rates(
    axes: Axes,
    summary: Summary,
    deployment: Deployment,
    points: Sequence[Point],
    titles: Mapping[str, str],
    colours: Mapping[str, str],
) -> None:
    for server, title in titles.items():
        figures = summary.get(server, {})
        known = [point for point in points if load_figure(point, RATE) in figures]
        if known:
            rates = [figures[load_figure(point, RATE)] for point in known]
            axes.plot([point.clients for point in known], rates, marker="o", label=title, color=colours[server])
    clients = [point.clients for point in points]
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.set_ylim(bottom=0)
    axes.set_title(f"{deployment.handler.title}, batch {deployment.batch}")
    axes.set_xlabel("clients")
    axes.set_ylabel("requests a second")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()


def draw_bars(axes: Axes, summary: Summary, name: str, titles: Mapping[str, str], colours: Mapping[str, str]) -> None:
    servers = [server for server in titles if name in summary.get(server, {})]
    heights = [summary[server][name] for server in servers]
    bars = axes.bar([titles[server] for server in servers], heights, color=[colours[server] for server in servers])
    axes.bar_label(bars, fmt="%.3g")
    axes.set_ylim(0, max(heights, default=0.0) * HEADROOM or 1.0)
    title, unit = BAR_TITLES[name]
    axes.set_title(f"{title.replace('`', '')}\n({unit})", fontsize="small")


def draw_footprints(footprints: Sequence[Footprint], path: Path) -> None:
    """Memory of the frontend over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SOAK_SIZE, layout="constrained")
    axes = figure.add_subplot()
    minutes = [each.seconds / 60 for each in footprints]
    axes.plot(minutes, [each.rss / 2**20 for each in footprints], label="RSS")
    axes.plot(minutes, [each.pss / 2**20 for each in footprints], label="PSS")
    axes.set_ylim(bottom=0)
    axes.set_title("Frontend")
    axes.set_xlabel("minutes")
    axes.set_ylabel("MiB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=RESOLUTION)
