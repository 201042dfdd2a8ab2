"""Draws the figures: requests a second over clients, and the life of a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import LIFECYCLE, RATE, Medians, load_figure
from benchmarks.plan import Deployment, Point
from benchmarks.report import LIFECYCLE_TITLES

SIZE = (11, 10)  # inches
RESOLUTION = 110  # dots an inch
HEADROOM = 1.15  # top of a bar chart over its highest bar, for the number on it


def draw(medians: Medians, points: Sequence[Point], titles: Mapping[str, str], path: Path) -> None:
    """One panel per model, one per figure of the life of a worker; `titles` gives servers and their order."""
    deployments = list(dict.fromkeys(point.deployment for point in points))
    colours = {server: f"C{index}" for index, server in enumerate(titles)}
    figure = Figure(figsize=SIZE, layout="constrained")
    rows = (len(deployments) + 1) // 2
    grid = figure.add_gridspec(rows + 1, 4)
    for index, deployment in enumerate(deployments):
        column = 2 * (index % 2)
        axes = figure.add_subplot(grid[index // 2, column : column + 2])
        own = [point for point in points if point.deployment == deployment]
        draw_rates(axes, medians, deployment, own, titles, colours)
    for index, name in enumerate(LIFECYCLE):
        draw_bars(figure.add_subplot(grid[rows, index]), medians, name, titles, colours)
    figure.savefig(path, dpi=RESOLUTION)


def draw_rates(
    axes: Axes,
    medians: Medians,
    deployment: Deployment,
    points: Sequence[Point],
    titles: Mapping[str, str],
    colours: Mapping[str, str],
) -> None:
    for server, title in titles.items():
        figures = medians.get(server, {})
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


def draw_bars(axes: Axes, medians: Medians, name: str, titles: Mapping[str, str], colours: Mapping[str, str]) -> None:
    servers = [server for server in titles if name in medians.get(server, {})]
    heights = [medians[server][name] for server in servers]
    bars = axes.bar([titles[server] for server in servers], heights, color=[colours[server] for server in servers])
    axes.bar_label(bars, fmt="%.3g")
    axes.set_ylim(0, max(heights, default=1.0) * HEADROOM)
    title, unit = LIFECYCLE_TITLES[name]
    axes.set_title(f"{title.replace('`', '')}\n({unit})", fontsize="small")
