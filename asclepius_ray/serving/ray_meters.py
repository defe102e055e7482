"""The figures of a replica through Ray's own exporter, as `ray_asclepius_serving_…`.

Ray adds the application, the deployment and the replica by itself; only within a replica.
"""

from typing import Any

from ray.serve import metrics

from asclepius_ray.serving.meters import PREFIX, Figure, Record


class RayMirror:
    """Records every figure with Ray Serve's metrics."""

    def open(self, figure: Figure) -> Record:
        name, text, labels = f"{PREFIX}_{figure.name}", figure.text, figure.labels
        match figure.kind:
            case "counter":
                counter: Any = metrics.Counter(name, text, labels)
                return lambda value, found: counter.inc(value, found) if value > 0 else None
            case "gauge":
                gauge: Any = metrics.Gauge(name, text, labels)
                return lambda value, found: gauge.set(value, found)
            case "histogram":
                histogram: Any = metrics.Histogram(name, text, list(figure.buckets), labels)
                return lambda value, found: histogram.observe(value, found)
