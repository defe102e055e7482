"""Rules and dashboard ask for what a real Ray node exports of every stage's figures, by its names there."""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml
from promtool import RULES, promtool
from watched_names import DASHBOARD, asked_names, dashboard_expressions, rule_expressions

from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.durable_purse import PurseFigures
from asclepius_ray.evaluation.metrics import Metrics as EvaluationMetrics
from asclepius_ray.evaluation.metrics import Tally, status_of
from asclepius_ray.evaluation.records import Answer, Grade, Verdict
from asclepius_ray.launch.cluster.dashboard import SCHEMA_VERSION, render_dashboard
from asclepius_ray.node_watch import watching_nodes
from asclepius_ray.serving.meters import FIGURES, Meters
from asclepius_ray.serving.ray_meters import RayMirror
from asclepius_ray.synthesis.metrics import Metrics as SynthesisMetrics
from asclepius_ray.training.metrics import OF_LINES
from asclepius_ray.training.metrics import Metrics as TrainingMetrics

RUN, MODEL = "watched", "dashboard / 1"
PATIENCE_SECONDS = 60.0
OF_SERVE = "ray_serve_"
"""Ray Serve's own, which the test of the whole line looks for."""


def exported() -> dict[str, set[str]]:
    """The names of our series on all nodes of the cluster, with the labels of each."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in ray.nodes():
        if node["Alive"]:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            page = httpx.get(address, timeout=10, trust_env=False).text
            for name, labels in re.findall(r"^(ray_asclepius_\w+)\{(.*)\} \S+$", page, re.MULTILINE):
                found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def serve_something() -> None:
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


def synthesize_something() -> None:
    names = ("calls", "tokens", "cost_usd", "unsettled_usd", "refusals", "requests_per_minute", "workers")
    names = (*names, "tokens_per_minute", "in_flight", "waiting", "seconds_left", "budget_usd")
    states = ("input", "readable", "done", "ok", "rejected", "failed")
    status = {"rows": dict.fromkeys(states, 5), "lost": {"refusal": 1}, "awaits_batches": False}
    SynthesisMetrics(RUN).set({**status, **dict.fromkeys(names, 1.5), "last_row_unix": time.time()})


def train_something() -> None:
    metrics, now = TrainingMetrics(RUN, time.time()), time.time()
    metrics.begin(2, 0, 9, now)
    metrics.set({figure.name: 0.5 for figure in OF_LINES}, 60.0, now)
    metrics.saved(3, 1.5, now)


def evaluate_something() -> None:
    tally = Tally(3, time.time())
    answer = Answer("1", "trained", "", "stop", "")
    tally.add([answer], [Grade("1", "trained", "judge", 0, 0, 4, Verdict.JUDGED.value)], time.time())
    snapshot = DeskSnapshot(
        steps={}, unsettled_usd=0.0, has_price=True, budget_usd=5.0, num_replayed=0, num_refusals=0,
        requests_per_minute=None, tokens_per_minute=None, num_in_flight=0, num_permits=0, num_waiting=0,
        num_workers=1, num_segments=1, num_damaged_records=0, why_waiting="", trouble=None,
    )  # fmt: skip
    purse = PurseFigures(1.0, 0.5, 5.0)
    EvaluationMetrics(RUN).set(status_of(tally, {"judges/judge": snapshot}, purse, time.time()))


@pytest.mark.usefixtures("ray_cluster")
def test_every_series_that_is_asked_for_is_exported_with_its_labels() -> None:
    serve_something()
    synthesize_something()
    train_something()
    evaluate_something()
    asked = {name: labels for name, labels in asked_names().items() if not name.startswith(OF_SERVE)}
    with watching_nodes(RUN):
        give_up = time.monotonic() + PATIENCE_SECONDS
        while asked.keys() - exported().keys() and time.monotonic() < give_up:
            time.sleep(1)
        found = exported()
    assert asked.keys() - found.keys() == set()
    assert {name: labels - found[name] for name, labels in asked.items() if labels - found[name]} == {}


def test_every_figure_of_serving_is_on_the_dashboard() -> None:
    whole = "\n".join(dashboard_expressions())
    assert [figure.name for figure in FIGURES if f"ray_asclepius_serving_{figure.name}" not in whole] == []


def test_what_is_asked_for_is_a_series_of_ours_or_of_ray_serve() -> None:
    expressions = [*dashboard_expressions(), *rule_expressions()]
    assert all(re.search(r"ray_(asclepius|serve)_\w+", each) for each in expressions)
    assert set().union(*asked_names().values()) <= {
        "application", "deployment", "le", "model", "reason", "run", "seat", "state", "status", "verdict",
    }  # fmt: skip


def test_the_committed_dashboard_is_the_rendered_one() -> None:
    assert DASHBOARD.read_text() == render_dashboard()


def test_every_panel_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] == SCHEMA_VERSION
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(across for across, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["description"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    known = [re.sub(r"\$__rate_interval", "5m", each) for each in dashboard_expressions()]
    queries = [re.sub(r"\$(run|model)", ".*", each) for each in known if "label_values" not in each]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(queries)]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    ended = promtool("check", "rules", "panels.yml", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(queries)} rules found" in ended.stdout


def test_the_rules_and_the_monitor_are_what_the_operator_takes() -> None:
    rules, monitor = (
        yaml.safe_load((RULES.parent / name).read_text()) for name in ("rules.yaml", "pod-monitor.yaml")
    )
    assert (rules["kind"], monitor["kind"]) == ("PrometheusRule", "PodMonitor")
    assert {each["apiVersion"] for each in (rules, monitor)} == {"monitoring.coreos.com/v1"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert chosen.pop("ray.io/is-ray-node") == "yes"
    for file in ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml"):
        text = (RULES.parents[1] / file).read_text()
        for documents in yaml.safe_load_all(text):
            for labels in pod_labels(documents):
                assert chosen.items() <= labels.items(), file


def pod_labels(value: Any) -> list[dict[str, str]]:
    """The labels of every pod that Ray runs in, wherever its template stands."""
    if isinstance(value, list):
        return [labels for each in value for labels in pod_labels(each)]
    if not isinstance(value, dict):
        return []
    found = [labels for each in value.values() for labels in pod_labels(each)]
    if "rayStartParams" in value:
        found.append(value["template"]["metadata"]["labels"])
    return found
