"""The dashboard asks for what a real Ray node exports of a replica's figures, by its names there."""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from asclepius_ray.serving.meters import FIGURES, Meters
from asclepius_ray.serving.ray_meters import RayMirror

DASHBOARD = Path(__file__).resolve().parents[2] / "cluster" / "dashboards" / "serving.json"
NAME = r"ray_asclepius_serving_\w+"
MODEL = "dashboard / 1"
PATIENCE_SECONDS = 60.0


def expressions() -> list[str]:
    """All that the dashboard asks of Prometheus, its variables included."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables: list[dict[str, Any]] = dashboard["templating"]["list"]
    return asked + [each["query"]["query"] for each in variables if each["type"] == "query"]


def labels_of(expression: str) -> set[str]:
    """Those that it filters or groups by."""
    filters = re.findall(r"(\w+)=~?\"", expression)
    groups = [name for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(", ")]
    return {*filters, *groups, *re.findall(r"label_values\([^,]+, (\w+)\)", expression)}


def exported() -> dict[str, set[str]]:
    """The names of our series on all nodes of the cluster, with the labels of each."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in ray.nodes():
        if node["Alive"]:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            page = httpx.get(address, timeout=10, trust_env=False).text
            for name, labels in re.findall(rf"^({NAME})\{{(.*)\}} \S+$", page, re.MULTILINE):
                found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def record_every_figure() -> None:
    meters = Meters(RayMirror())
    meters.ended("/v1/models", 200)
    meters.admitted(MODEL, 7)
    meters.refused("capacity", MODEL)
    meters.made(MODEL, 3)
    meters.placed(MODEL, 0.1)
    meters.answered(MODEL, 0.2, 0.01)
    meters.audit_line_lost()
    for figure in FIGURES:
        if figure.kind == "gauge":
            meters.gauge(figure.name, MODEL, 0.5)


@pytest.mark.usefixtures("ray_cluster")
def test_every_series_of_the_dashboard_is_exported_with_the_labels_that_it_asks_for() -> None:
    record_every_figure()
    asked = {name: labels_of(each) for each in expressions() for name in re.findall(NAME, each)}
    give_up = time.monotonic() + PATIENCE_SECONDS
    while asked.keys() - exported().keys() and time.monotonic() < give_up:
        time.sleep(1)
    found = exported()
    assert asked.keys() - found.keys() == set()
    assert {name: labels - found[name] for name, labels in asked.items() if labels - found[name]} == {}


def test_every_figure_is_on_the_dashboard_and_by_one_prefix_alone() -> None:
    whole = "\n".join(expressions())
    assert [figure.name for figure in FIGURES if f"ray_asclepius_serving_{figure.name}" not in whole] == []
    assert all(re.search(NAME, each) for each in expressions())
