"""Reads the metrics ports of a Ray cluster that another process has started, as a Prometheus server would."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

DISCOVERY = "ray/prom_metrics_service_discovery.json"
"""Where the head writes for Prometheus which ports there are, below its folder."""
SCRAPE_SECONDS = 1.0
Series = dict[str, float]


@contextmanager
def scraping(ray_folder: Path) -> Iterator[Series]:
    """Yields the newest value of every series of ours and of Ray Serve; it grows while the run works."""
    seen, ended = Series(), threading.Event()

    def scrape() -> None:
        while not ended.wait(SCRAPE_SECONDS):
            # No cluster yet, or none any more.
            with suppress(OSError, ValueError, httpx.HTTPError):
                for port in ports(ray_folder):
                    page = httpx.get(f"http://{port}/metrics", timeout=5, trust_env=False).text
                    found = re.findall(r"^(ray_(?:asclepius|serve)_\w+)\{(.*)\} (\S+)$", page, re.MULTILINE)
                    seen.update({f"{name}{{{labels}}}": float(value) for name, labels, value in found})

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    yield seen
    ended.set()
    thread.join()


def ports(ray_folder: Path) -> list[str]:
    groups = json.loads((ray_folder / DISCOVERY).read_text())
    return [target for group in groups for target in group["targets"]]


def value_of(seen: Series, name: str, label: str = "") -> float:
    """The newest value of the one series of that name with a label such as `state="done"`."""
    found = [value for series, value in seen.items() if series.startswith(name + "{") and label in series]
    assert len(found) == 1, f"{len(found)} series {name} with {label!r}"
    return found[0]
