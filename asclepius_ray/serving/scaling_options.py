"""How a deployment is told how many replicas to have."""

import warnings
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.scaling import WINDOW_SECONDS, WaitPolicy

REPORT_SECONDS = 1.0
"""How often replicas and handles tell the controller their load; Serve's 10 s would be most of a wait."""


def scaling_options(config: ServingConfig) -> dict[str, Any]:
    """`num_replicas` where it is a number, else an `autoscaling_config` that follows the expected wait.

    The first deployment starts one even where none need be: what cannot be served fails then, and not when
    the first request comes.
    """
    fewest, most = config.replicas
    if fewest == most:
        return {"num_replicas": most}
    policy = AutoscalingPolicy(
        policy_function=f"{WaitPolicy.__module__}:{WaitPolicy.__name__}",
        policy_kwargs={"target_wait_seconds": config.target_wait_seconds},
    )
    with warnings.catch_warnings():
        # The interval is to become an environment variable of all deployments; in 2.60 it is this setting.
        warnings.simplefilter("ignore", DeprecationWarning)
        autoscaling = AutoscalingConfig(
            min_replicas=fewest,
            max_replicas=most,
            initial_replicas=max(1, fewest),
            upscale_delay_s=config.scale_up_seconds,
            downscale_delay_s=config.idle_seconds,
            downscale_to_zero_delay_s=config.idle_seconds,
            metrics_interval_s=REPORT_SECONDS,
            look_back_period_s=WINDOW_SECONDS,
            policy=policy,
        )
    return {"autoscaling_config": autoscaling}
