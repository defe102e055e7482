"""A chat endpoint that says what a test wants, over real HTTP, and a small run root with two tiny models."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from chat_server import Reply, prompt_in, serving_chat
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.records import Task
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

SEQUENCE_LENGTH = 512
NUM_ITEMS = 10
ServeChat = Callable[[Callable[[str], Reply]], Endpoint]


@pytest.fixture
def serve_chat() -> Iterator[ServeChat]:
    """Opens endpoints that answer by a function of the prompt; closed at the end of the test."""
    with ExitStack() as stack:

        def open_endpoint(say: Callable[[str], Reply]) -> Endpoint:
            base_url = stack.enter_context(serving_chat(lambda body: say(prompt_in(body))))
            return Endpoint(base_url=base_url, model="test", max_attempts=1, timeout_seconds=20)

        yield open_endpoint


@pytest.fixture(scope="session")
def finished_training(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A root with a dataset of NUM_ITEMS held-out rows, and two tiny models of different weights."""
    root = Folder(str(tmp_path_factory.mktemp("evaluated")))
    _write_dataset(root.child("dataset"))
    texts = [row["note"] + row["question"] + row["answer"] for row in _rows()]
    tokenizer = train_tokenizer(texts, 400)
    ensure_chat_template(tokenizer)
    for seed, name in enumerate(("model", "base_model")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=SEQUENCE_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        path = Path(root.child(name).uri)
        LlamaForCausalLM(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
    return root


@pytest.fixture
def run_root(finished_training: Folder, tmp_path: Path) -> Folder:
    """The same models and dataset under a root of the test's own."""
    for name in ("dataset", "model", "base_model"):
        (tmp_path / name).symlink_to(finished_training.local_path / name)
    return Folder(str(tmp_path))


def _write_dataset(dataset: Folder) -> None:
    dataset.make()
    table = pyarrow.Table.from_pylist(_rows())
    with dataset.open_output("validation-00000.parquet") as stream:
        pyarrow.parquet.write_table(table, stream)
    with dataset.open_output("train-00000.parquet") as stream:
        pyarrow.parquet.write_table(table.slice(0, 0), stream)
    write_manifest(dataset, "dataset", {"input": NUM_ITEMS, "ok": NUM_ITEMS}, {})


def _rows() -> list[dict[str, object]]:
    tasks = list(Task)
    return [
        {
            "patient_id": index,
            "patient_uid": f"{7000000 + index}-1",
            "note": f"Hospital course: patient {index} had fever of 39 C. "
            f"She was given 500 mg of drug {index}. She went home well.",
            "question": f"Which drug was given to patient {index}?",
            "answer": f"Drug {index}, 500 mg.",
            "task": tasks[index % 3].value,
        }
        for index in range(NUM_ITEMS)
    ]
