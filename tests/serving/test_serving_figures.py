"""Figures with bounded labels."""

from asclepius_ray.serving.meters import FIGURES, MOST_MODELS, Figure, Meters, Record
from asclepius_ray.serving.ray_meters import RayMirror


def test_labels_stay_few_whatever_the_models_are_called() -> None:
    meters = Meters()
    for number in range(10 * MOST_MODELS):
        meters.made(f"model-{number}", 1)
    lines = [line for line in meters.text().decode().splitlines() if "completion_tokens_total{" in line]
    assert len(lines) == MOST_MODELS + 1
    assert sum(float(line.split()[-1]) for line in lines) == 10 * MOST_MODELS


def test_a_mirror_gets_every_figure_with_the_same_labels() -> None:
    heard: list[tuple[str, float, dict[str, str]]] = []

    class Mirror:
        def open(self, figure: Figure) -> Record:
            return lambda value, labels: heard.append((figure.name, value, labels))

    meters = Meters(Mirror())
    meters.admitted("m", 7)
    meters.refused("capacity", "m")
    meters.answered("m", 0.5, None)
    meters.ended("/v1/models", 200)
    assert heard == [
        ("admitted_requests", 1, {"model": "m"}),
        ("prompt_tokens", 7, {"model": "m"}),
        ("refused_requests", 1, {"model": "m", "reason": "capacity"}),
        ("first_token_seconds", 0.5, {"model": "m"}),
        ("http_requests", 1, {"route": "/v1/models", "status": "200"}),
    ]
    labels = {figure.name: set(figure.labels) for figure in FIGURES}
    assert all(set(found) == labels[name] for name, _, found in heard)


def test_rays_own_metrics_take_every_figure() -> None:
    mirror = RayMirror()
    for figure in FIGURES:
        mirror.open(figure)(1.0, dict.fromkeys(figure.labels, "x"))
