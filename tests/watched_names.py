"""What the alert rules and the dashboard ask of Prometheus."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).resolve().parents[1] / "cluster"
DASHBOARD = CLUSTER / "dashboards" / "asclepius.json"
RULES = CLUSTER / "prometheus" / "rules.yaml"


def dashboard_expressions() -> list[str]:
    """All that the dashboard asks of Prometheus, its variables included."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables: list[dict[str, Any]] = dashboard["templating"]["list"]
    return asked + [each["query"]["query"] for each in variables if each["type"] == "query"]


def rule_expressions() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def asked_names() -> dict[str, set[str]]:
    """Each series that is asked for, and the labels by which it is filtered or grouped anywhere."""
    asked: dict[str, set[str]] = {}
    expressions = (*dashboard_expressions(), *rule_expressions())
    # Each side of "and", "or" and "unless" has groups of its own.
    for expression in (side for whole in expressions for side in re.split(r"\b(?:and|or|unless)\b", whole)):
        groups = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        grouped = {name for group in groups for name in group.split(", ")}
        grouped |= set(re.findall(r"label_values\([^,]+, (\w+)\)", expression))
        for name, filters in re.findall(r"(ray_(?:asclepius|serve)_\w+)(\{[^}]*\})?", expression):
            asked.setdefault(name, set()).update(grouped, re.findall(r"(\w+)(?:=|!)~?=?\"", filters))
    return asked
