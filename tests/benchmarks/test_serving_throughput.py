"""Tokens per second and time to the first token over HTTP: our surface on vLLM, bare vLLM, ray.serve.llm."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Note
from serving_servers import CONTESTANTS, VLLM_PYTHON, load, running
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

CLIENTS = (1, 8, 64)
ROUNDS = 3
# Hidden size, layers: the larger one's step takes 20 ms and more on two cores.
MODELS = {"tiny": (64, 2), "larger": (1024, 6)}
ANSWERS = {"tiny": {1: 24, 8: 120, 64: 384}, "larger": {1: 4, 8: 16, 64: 64}}
LEAST_OF_BARE = {"tiny": 0.75, "larger": 0.95}
FIRST_TOKEN_SECONDS = 0.005
LEAST_STEP_SECONDS = 0.020

pytestmark = pytest.mark.skipif(
    not VLLM_PYTHON.exists(), reason="vLLM is not here; make .venv-vllm/.installed"
)


def save_model(folder: Path, hidden_size: int, num_layers: int) -> Path:
    tokenizer = train_tokenizer([f"word{i} {i}" for i in range(97)] * 4, vocabulary_size=420)
    ensure_chat_template(tokenizer)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 3,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        # No answer ends before its time: the end token is none that the random weights can prefer.
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(MODELS))
def contest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Server → clients → the best of several rounds; one server at a time has the machine."""
    root = tmp_path_factory.mktemp(request.param)
    model = save_model(root / "model", *MODELS[request.param])
    found: dict[str, Any] = {"model": request.param}
    for name in CONTESTANTS:
        with running(name, model, root / name.replace(" ", "-")) as contender:
            load(contender, 8, 16)
            found[name] = {
                clients: [
                    json.loads(load(contender, clients, ANSWERS[request.param][clients]))
                    for _ in range(ROUNDS)
                ]
                for clients in CLIENTS
            }
    return found


def rate(rounds: list[dict[str, Any]]) -> float:
    return max(each["tokens"] / each["seconds"] for each in rounds)


def first_token(rounds: list[dict[str, Any]]) -> float:
    return min(float(each["first_token_p50_seconds"]) for each in rounds)


def test_the_tokens_of_bare_vllm_arrive_over_our_surface(
    contest: dict[str, Any], note: Note, is_quick: bool
) -> None:
    model = contest["model"]
    for clients in CLIENTS:
        bare = rate(contest["bare vLLM"][clients])
        for name in CONTESTANTS:
            rounds = contest[name][clients]
            assert [each["failures"] for each in rounds] == [[]] * ROUNDS, name
            told = (
                f"{rate(rounds):,.0f} tokens/s ({rate(rounds) / bare:.0%} of bare), "
                f"first token {first_token(rounds) * 1e3:.1f} ms"
            )
            answers = sum(each["answers"] for each in rounds)
            seconds = sum(each["seconds"] for each in rounds)
            note(f"serving, {model} model, {clients} clients", name, answers, seconds, told)
    if is_quick:
        return
    if model == "larger":
        assert rate(contest["bare vLLM"][1]) <= 1 / LEAST_STEP_SECONDS
    for clients in CLIENTS:
        own = rate(contest["ours"][clients])
        assert own >= LEAST_OF_BARE[model] * rate(contest["bare vLLM"][clients]), clients
        assert own > rate(contest["ray.serve.llm"][clients]), clients
    bare_first, own_first = (first_token(contest[name][1]) for name in ("bare vLLM", "ours"))
    assert own_first <= bare_first + FIRST_TOKEN_SECONDS
