"""The alerts fire when they must and are silent when they must, by Prometheus' own evaluation."""

import re
from pathlib import Path
from typing import Any

import yaml
from alert_scenes import MINUTES, SCENES, Scene
from promtool import RULES, RULES_NAME, promtool, write_rules

FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["spec"]["groups"] for rule in group["rules"]
]


def scene_test(name: str, scene: Scene) -> dict[str, Any]:
    """One of promtool's own unit tests: which alerts stand at the end, and no other."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in scene.firing]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": series, "values": told} for series, told in scene.series.items()],
        "promql_expr_test": [{"expr": FIRING, "eval_time": f"{MINUTES}m", "exp_samples": samples}],
    }


def test_in_every_scene_the_right_alerts_fire(tmp_path: Path) -> None:
    write_rules(tmp_path)
    tests = {
        "rule_files": [RULES_NAME],
        "evaluation_interval": "5m",
        "tests": [scene_test(name, scene) for name, scene in SCENES.items()],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    ended = promtool("test", "rules", "tests.yml", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_a_scene_in_which_it_fires() -> None:
    assert {alert["alert"] for alert in ALERTS} == {
        name for scene in SCENES.values() for name in scene.firing
    }


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}
        shown = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        assert shown <= {"run", "seat", "model", "application", "deployment"}, "names of settings alone"


def test_the_rules_are_read_by_prometheus(tmp_path: Path) -> None:
    write_rules(tmp_path)
    ended = promtool("check", "rules", RULES_NAME, folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(ALERTS)} rules found" in ended.stdout
