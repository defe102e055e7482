"""ray.data.llm's HTTP processor over the same prompts, as its documentation shows it."""

import json
import logging
import os
import sys
import time
from typing import Any

import ray
import ray.data
from ray.data.llm import HttpRequestProcessorConfig, build_processor

CPUS = 4


def run(settings: dict[str, Any]) -> dict[str, Any]:
    with open(settings["prompts"], encoding="utf-8") as stream:  # noqa: PTH123
        prompts = [json.loads(line) for line in stream]
    ray.init(
        address="local",
        num_cpus=max(CPUS, os.cpu_count() or 1),
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    config = HttpRequestProcessorConfig(
        url=f"{settings['base_url']}/chat/completions",
        # As a range: with a number it begins with one actor.
        concurrency=(settings["concurrency"], settings["concurrency"]),
        batch_size=settings["batch_size"],
        max_retries=10,
    )
    process = build_processor(config, preprocess=_payload_of, postprocess=_text_of)
    begin = time.monotonic()
    # One large block an actor: of one block it has up to four batches under way, of the next none.
    source = ray.data.from_items(prompts, override_num_blocks=settings["concurrency"])
    answered = process(source).materialize()
    texts = [row["text"] for row in answered.iter_rows()]
    end = time.monotonic()
    ray.shutdown()
    return {"begin": begin, "end": end, "num_lost": len(prompts) - sum(bool(text) for text in texts)}


def _payload_of(row: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": row["prompt"]}]
    return {
        "payload": {"model": "offline-rules", "messages": messages, "temperature": 1.0, "max_tokens": 1024}
    }


def _text_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": row["http_response"]["choices"][0]["message"]["content"]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))) + "\n")
