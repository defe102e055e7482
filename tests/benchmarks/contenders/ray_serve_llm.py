"""ray.serve.llm as its documentation sets it up, on the model folder of the first argument."""

import sys

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app


def main(model: str, port: int, max_model_len: int) -> None:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = LLMConfig(
        model_loading_config={"model_id": "model", "model_source": model},
        deployment_config={"num_replicas": 1},
        placement_group_config={"bundles": [{"CPU": 1}]},
        engine_kwargs={"max_model_len": max_model_len, "dtype": "float32"},
    )
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
