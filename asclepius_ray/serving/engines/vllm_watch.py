"""What vLLM 0.29's scheduler tells of itself after each step, instead of vLLM's own log lines and metrics.

Its statistics are an internal part of vLLM; nothing outside this module and the engine's knows them.
"""

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger


# vLLM makes its Prometheus metrics beside any other logger, except beside one that is itself such a logger:
# the numbers of a replica are counted once, by the serving, and vLLM's would cost time in every step.
class SchedulerWatch(PrometheusStatLogger):  # type: ignore[misc]
    """Keeps the scheduler's last numbers."""

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        self.running = 0
        self.waiting = 0
        self.cache_use = 0.0

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self.cache_use = scheduler_stats.kv_cache_usage

    def log(self) -> None:
        pass

    def log_engine_initialized(self) -> None:
        pass

    def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
        pass


def scheduler_watch(llm: Any) -> SchedulerWatch:
    """The one that this AsyncLLM made."""
    [watch] = [one for one in llm.logger_manager.stat_loggers if isinstance(one, SchedulerWatch)]
    return watch
