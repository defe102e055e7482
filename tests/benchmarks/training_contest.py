"""Steps of our training loop and of plain loops by turns, in one worker of Ray Train, and how long they take.

By turns, since the machine's speed changes from minute to minute: what is compared is what ran side by side.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class Contest:
    """What the worker measured: contender → real tokens and seconds of each of its steps, in turns."""

    threads: int
    weights: int
    steps: dict[str, list[tuple[int, float]]]

    def tokens_per_second(self, name: str) -> float:
        return sum(tokens for tokens, _ in self.steps[name]) / self.seconds(name)

    def seconds(self, name: str) -> float:
        return sum(seconds for _, seconds in self.steps[name])

    def ratio(self, name: str, other: str) -> float:
        """How many times as fast `name` is: the median over the turns, whom a busy moment does not move."""
        pairs = zip(self.steps[name], self.steps[other], strict=True)
        return statistics.median((mine[0] / mine[1]) / (theirs[0] / theirs[1]) for mine, theirs in pairs)


def run_contest(root: str, training: dict[str, Any], names: list[str], turns: int, folder: Path) -> Contest:
    """Runs the contenders by turns in one worker on the cluster that this process is connected to."""
    import sys

    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from asclepius_ray.training.fitting import IsolatedTrainer, start_board

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    settings = {"root": root, "training": training, "names": names, "turns": turns, "folder": str(folder)}
    IsolatedTrainer(
        compete_on_worker,
        train_loop_config={**settings, "board": start_board()},
        scaling_config=ScalingConfig(num_workers=1),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(name="contest", storage_path=str(folder)),
    ).fit()
    values = json.loads((folder / "contest.json").read_text())
    steps = {
        name: [(tokens, seconds) for tokens, seconds in found] for name, found in values["steps"].items()
    }
    return Contest(values["threads"], values["weights"], steps)


def compete_on_worker(settings: dict[str, Any]) -> None:
    """On the worker: the first turn warms up and does not count."""
    import os

    from asclepius_ray.training.config import TrainingConfig
    from asclepius_ray.training.threads import use_own_cores

    os.environ["DS_ACCELERATOR"] = "cpu"
    training = TrainingConfig.model_validate(settings["training"])
    use_own_cores(training.cpu_threads)
    with Contenders(settings["root"], training, settings["board"]) as (contenders, weights):
        steps: dict[str, list[tuple[int, float]]] = {name: [] for name in settings["names"]}
        for turn in range(settings["turns"] + 1):
            # Nobody always comes first.
            for name in settings["names"][:: 1 if turn % 2 else -1]:
                started = time.monotonic()
                tokens = contenders[name]()
                steps[name].append((tokens, time.monotonic() - started))
    counted = {name: found[1:] for name, found in steps.items()}
    contest = Contest(torch.get_num_threads(), weights, counted)
    (Path(settings["folder"]) / "contest.json").write_text(json.dumps(asdict(contest)))


class Contenders:
    """Name → a function that takes one optimizer step and returns its real tokens."""

    def __init__(self, root: str, training: Any, board: Any) -> None:
        from asclepius_ray.artifacts import Folder
        from asclepius_ray.training.checkpoints.writing import CheckpointWriter
        from asclepius_ray.training.engine import start_engine
        from asclepius_ray.training.loop import Job, Trainer
        from asclepius_ray.training.loop_state import LoopState
        from asclepius_ray.training.phases import load_phases
        from asclepius_ray.training.recording import Recording

        self._folder = Folder(root)
        base = self._folder.child("base_model").local_path
        self._job = Job(self._folder, _sequence_length(self._folder), training, 7, board)
        store = self._folder.child("tokens").local_path
        (self._phase,) = load_phases(store, self._length, training, self._job.seed)
        engine = start_engine(base, training)
        run_folder = self._folder.child("contest")
        run_folder.make()
        self._writer = CheckpointWriter(engine, run_folder, 1)
        self._trainer = Trainer(self._job, engine, LoopState(), [self._phase], self._writer)
        self._recording = Recording(run_folder, 0, 0, self._job.tell)
        self._plain = _Plain(base, training)
        self._padded = _Plain(base, training)

    def __enter__(self) -> tuple[dict[str, Callable[[], int]], int]:
        self._writer.__enter__()
        self._trainer.recording = self._recording.__enter__()
        rows, documents = self._row_batches(), self._document_batches()
        steps = {
            "ours": self._ours,
            "bare loop, packed rows": lambda: self._plain.step_on_rows(*next(rows)),
            "padded to the maximum": lambda: self._padded.step_on_documents(next(documents), self._length),
            "padded to the longest": lambda: self._padded.step_on_documents(next(documents), 0),
        }
        return steps, sum(parameter.numel() for parameter in self._plain.model.parameters())

    def __exit__(self, *error: Any) -> None:
        self._recording.__exit__(None, None, None)
        self._writer.__exit__(None, None, None)

    @property
    def _length(self) -> int:
        return self._job.sequence_length

    def _ours(self) -> int:
        """All that the loop does for a step: rows, step, figures, its line, the look for wishes."""
        before = self._trainer.state.step
        self._trainer._train_step(self._phase)
        self._trainer._between_steps(save_due=False)
        packed, rows = self._phase.batch(before)
        return int(packed.tokens(rows))

    def _row_batches(self) -> Iterator[tuple[Any, int, int]]:
        """The very batches of our steps, put together beforehand: (batch, targets, tokens)."""
        from asclepius_ray.training.batches import collate

        for step in range(self._phase.total_steps):
            packed, rows = self._phase.batch(step)
            yield collate(packed, rows), packed.loss_tokens(rows), packed.tokens(rows)

    def _document_batches(self) -> Iterator[list[torch.Tensor]]:
        """As many documents a step as we have rows, in a random order."""
        documents = self._phase.documents
        order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(7)).tolist()
        size = self._job.training.global_batch
        while True:
            for start in range(0, len(order) - size + 1, size):
                numbers = order[start : start + size]
                yield [torch.from_numpy(documents.tokens(number)[0].astype("int64")) for number in numbers]


class _Plain:
    """A model and torch's own AdamW, as one writes it without any library."""

    def __init__(self, base: Path, training: Any) -> None:
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, attn_implementation="sdpa")
        self.model.train()
        self._clip = training.max_gradient_norm
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.0)

    def step_on_rows(self, batch: Any, targets: int, tokens: int) -> int:
        from asclepius_ray.training.batches import summed_loss

        self._learn(summed_loss(self.model, batch) / targets)
        return tokens

    def step_on_documents(self, documents: list[torch.Tensor], length: int) -> int:
        """Padded to `length`, or to the longest of them where that is 0, with a mask, as both recipes do."""
        longest = max(len(document) for document in documents)
        shape = (len(documents), length or longest)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for line, document in enumerate(documents):
            ids[line, : len(document)], mask[line, : len(document)] = document, 1
        labels = ids.masked_fill(mask == 0, -100)
        self._learn(self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss)
        return int(mask.sum())

    def _learn(self, loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad()


def _sequence_length(root: Any) -> int:
    from asclepius_ray.artifacts import read_manifest

    return int(read_manifest(root.child("tokens")).made_from["sequence_length"])
