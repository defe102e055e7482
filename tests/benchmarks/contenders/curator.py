"""bespoke curator over the same prompts; runs in an environment of its own, see curator_environment.py.

Told the limit, or a very high one; its viewer, telemetry and live display are off, its cache stays on,
since that is its journal.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

UNLIMITED = 1_000_000_000


def switch_off(folder: str) -> None:
    """Whatever would reach for the network or draw; before its import."""
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    os.environ |= {
        # It counts tokens with tables that it downloads; the same ones come with litellm.
        "TIKTOKEN_CACHE_DIR": str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"),
        "HOME": folder,
        "CURATOR_CACHE_DIR": f"{folder}/cache",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "CURATOR_VIEWER": "false",
        "TELEMETRY_ENABLED": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "LOGLEVEL": "ERROR",
    }


def run(settings: dict[str, Any]) -> dict[str, Any]:
    switch_off(settings["folder"])
    from bespokelabs import curator

    class Asker(curator.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, str]) -> str:
            return row["prompt"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"text": response}

    with open(settings["prompts"], encoding="utf-8") as stream:  # noqa: PTH123
        rows = [json.loads(line) for line in stream]
    backend = {
        "base_url": settings["base_url"],
        "api_key": "none",
        "max_requests_per_minute": settings["requests_per_minute"] or UNLIMITED,
        "max_tokens_per_minute": UNLIMITED,
        "max_retries": 10,
        "request_timeout": 120,
        "require_all_responses": False,
    }
    if settings["in_flight"]:
        backend["max_concurrent_requests"] = settings["in_flight"]
    asker = Asker(
        model_name="offline-rules",
        backend="openai",
        generation_params={"temperature": 1.0, "max_tokens": 1024},
        backend_params=backend,
    )
    begin = time.monotonic()
    answered = asker(rows, working_dir=f"{settings['folder']}/work")
    end = time.monotonic()
    num_answered = sum(bool(text) for text in answered.dataset["text"])
    found = version("bespokelabs-curator")
    return {"begin": begin, "end": end, "num_lost": len(rows) - num_answered, "version": found}


if __name__ == "__main__":
    # It writes to stdout as it likes; the last line is ours.
    said = run(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps(said) + "\n")
