"""GET /metrics: the figures of this replica for Prometheus; it needs a key of the scope `metrics`."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from asclepius_ray.serving.meters import CONTENT_TYPE, Meters
from asclepius_ray.serving.surface.route import ApiRoute


def metrics_route(meters: Meters) -> ApiRoute:
    return ApiRoute(
        "GET",
        "/metrics",
        "The figures of the replica that answers",
        "In Prometheus' text format, for a key of the scope `metrics`. Behind a proxy another replica may "
        "answer each time: Ray's own exporter has them all.",
        answers=partial(_show_metrics, meters),
        content_type="text/plain",
    )


async def _show_metrics(meters: Meters, _: Request) -> Response:
    return Response(meters.text(), headers={"Content-Type": CONTENT_TYPE})
