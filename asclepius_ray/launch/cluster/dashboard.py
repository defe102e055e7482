"""The Grafana dashboard over all stages as JSON: `python -m asclepius_ray.launch.cluster.dashboard`."""

import json
import sys
from typing import Any

from asclepius_ray.launch.cluster.dashboard_panels import ROWS, Panel, Query, Row

SCHEMA_VERSION = 41
"""Of Grafana 12; an older one is moved on by Grafana when it is opened."""
_WIDTH, _COLUMNS, _HEIGHT, _NUMBER_HEIGHT = 24, 3, 8, 5
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_VARIABLES = {
    "run": ("Run", "label_values(ray_asclepius_cluster_nodes, run)"),
    "model": ("Model", "label_values(ray_asclepius_serving_running_requests, model)"),
}


def render_dashboard() -> str:
    """The content of `cluster/dashboards/asclepius.json`."""
    dashboard = {
        "title": "asclepius-ray",
        "uid": "asclepius-ray",
        "description": "From case reports to a served model: every stage of every run on this cluster.",
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "tags": ["asclepius-ray"],
        "annotations": {"list": []},
        "templating": {"list": [_data_source(), *(_variable(name) for name in _VARIABLES)]},
        "panels": _panels(),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(name: str) -> dict[str, Any]:
    label, query = _VARIABLES[name]
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> list[dict[str, Any]]:
    """All rows one below the other, with numbers of their own."""
    found: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        title = {"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []}
        found.append(title | {"gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": top}})
        placed, top = _place(row, top + 1)
        found += [_panel(panel, len(found) + 1 + index, at) for index, (panel, at) in enumerate(placed)]
    return found


def _place(row: Row, top: int) -> tuple[list[tuple[Panel, dict[str, int]]], int]:
    """Where the panels of a row stand, numbers first, and where the next row begins."""
    placed = []
    for is_number in (True, False):
        panels = [panel for panel in row.panels if panel.is_number is is_number]
        columns, height = (len(panels), _NUMBER_HEIGHT) if is_number else (_COLUMNS, _HEIGHT)
        for index, panel in enumerate(panels):
            width = _WIDTH // columns
            across, down = index % columns, index // columns
            placed.append((panel, {"h": height, "w": width, "x": across * width, "y": top + down * height}))
        top += -(-len(panels) // max(columns, 1)) * height
    return placed, top


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_drawing(panel)}, "overrides": []},
        "options": _options(panel),
        "targets": [_target(query, index) for index, query in enumerate(panel.queries)],
    }


def _drawing(panel: Panel) -> dict[str, Any]:
    if panel.is_number:
        return {}
    mode, opacity = ("normal", 30) if panel.is_stacked else ("none", 12)
    return {"min": 0, "custom": {"fillOpacity": opacity, "stacking": {"mode": mode}}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.is_number:
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}


def _target(query: Query, index: int) -> dict[str, Any]:
    letter = chr(ord("A") + index)
    expression = {"expr": query.expression, "legendFormat": query.legend}
    return {"datasource": _SOURCE, "refId": letter, **expression}


if __name__ == "__main__":
    sys.stdout.write(render_dashboard())
