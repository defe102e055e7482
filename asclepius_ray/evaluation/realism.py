"""Reads sets of texts and a causal model → the perplexity of each set, as one Ray Data job.

Texts go from the driver into Ray's object store in blocks, and figures come back: three numbers a text. What
is in a block depends on the texts alone, and so does every figure, whatever the number of workers.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import SecretStr
from ray.data import ActorPoolStrategy, DataContext

from asclepius_ray.artifacts import Folder
from asclepius_ray.config import shown_name
from asclepius_ray.errors import AsclepiusError, EvaluationError
from asclepius_ray.evaluation.perplexity import Reader, score_texts
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.evaluation.realism_figures import Numbers, summarize_texts
from asclepius_ray.evaluation.realism_model import locate_model
from asclepius_ray.evaluation.realism_reader import ReaderSettings, open_reader
from asclepius_ray.evaluation.realism_texts import InputTexts, read_texts
from asclepius_ray.progress import Progress
from asclepius_ray.tables.blocks import Blocks

TEXTS_A_BLOCK = 32
"""Never fewer for more workers: texts are scored beside those of their block, which rounds figures alike."""

_TEXTS = pa.schema([("set", pa.int32()), ("place", pa.int64()), ("text", pa.string())])
# An error of the whole run travels as a row of its own: raised inside a call, it would reach the user below
# Ray Data's own stack traces.
_SCORES = pa.schema(
    [
        ("set", pa.int32()),
        ("place", pa.int64()),
        ("nats", pa.float64()),
        ("tokens", pa.int64()),
        ("words", pa.int64()),
        ("context_tokens", pa.int64()),
        ("stride_tokens", pa.int64()),
        ("first_token_scored", pa.bool_()),
        ("trouble", pa.string()),
    ]
)


@dataclass
class _Texts:
    """One set in the object store: its blocks, and how many texts are in them."""

    blocks: Blocks = field(default_factory=Blocks)
    num_texts: int = 0
    num_unreadable: int = 0
    """Rows that are empty, or that cannot be read."""


@dataclass
class _Found:
    """What the workers tell: a row of nats, tokens and words for each text, and how they have read."""

    scores: list[Numbers]
    reading: dict[str, Any] = field(default_factory=dict)


class TextScorer:
    """The callable of one actor, which opens the model with its first block."""

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._reader: Reader | None = None

    def __call__(self, texts: pa.Table) -> pa.Table:
        try:
            self._reader = self._reader or open_reader(self._settings)
        except AsclepiusError as error:
            return pa.Table.from_pylist([{"trouble": str(error)}], schema=_SCORES)
        scores = score_texts(self._reader, texts["text"].to_pylist())
        reading = {
            "context_tokens": self._reader.context_tokens,
            "stride_tokens": self._reader.stride_tokens,
            "first_token_scored": self._reader.scores_first_token,
        }
        rows = [
            {"set": number, "place": place, "nats": score.nats, "tokens": score.tokens, "words": score.words}
            | reading
            for number, place, score in zip(
                texts["set"].to_pylist(), texts["place"].to_pylist(), scores, strict=True
            )
        ]
        return pa.Table.from_pylist(rows, schema=_SCORES)


def measure_realism(
    root: Folder,
    config: RealismConfig,
    seed: int,
    progress: Progress,
    input_texts: InputTexts | None = None,
) -> dict[str, Any]:
    """The "realism" of scores.json: each set's perplexity by token and by word, with intervals over texts.

    `input_texts` opens the run's own input, for a set "run:input". Beside the contract's keys
    `first_token_scored` says whether a text's first token counts: not with a model that has no token for the
    begin. An EvaluationError if no set has a text.
    """
    place = locate_model(root, config.model)
    progress.begin("evaluate: reading the texts of the realism check")
    sets = {name: _load(root, config, name, number, input_texts) for number, name in enumerate(config.texts)}
    total = sum(texts.num_texts for texts in sets.values())
    if not total:
        raise EvaluationError(
            "evaluation.realism: every text of every set is empty or unreadable; check the columns"
        )
    progress.begin(f"evaluate: perplexity of {total} texts", total=total)
    found = _score(list(sets.values()), _settings(config, place), config, progress)
    if not any(scores[:, 1].any() for scores in found.scores):
        raise EvaluationError("evaluation.realism: no text of any set has a token that can be scored")
    return {
        "model": shown_name(config.model),
        **found.reading,
        "texts": [
            summarize_texts(name, config.texts[name].kind, scores, texts.num_unreadable, seed)
            for (name, texts), scores in zip(sets.items(), found.scores, strict=True)
        ],
    }


def _settings(config: RealismConfig, place: str) -> ReaderSettings:
    return ReaderSettings(
        place,
        SecretStr(os.environ.get("HF_TOKEN", "")),
        config.context_tokens,
        config.stride_tokens,
        config.use_gpu,
    )


def _load(
    root: Folder, config: RealismConfig, name: str, number: int, input_texts: InputTexts | None
) -> _Texts:
    """Reads a set into blocks of the object store, which spills to disk; one block at a time is held here."""
    found = _Texts()
    readable = _keep_readable(read_texts(root, config, name, input_texts), found)
    while block := list(islice(readable, TEXTS_A_BLOCK)):
        rows = [
            {"set": number, "place": found.num_texts + place, "text": text}
            for place, text in enumerate(block)
        ]
        found.blocks.add(pa.Table.from_pylist(rows, schema=_TEXTS))
        found.num_texts += len(block)
    return found


def _keep_readable(texts: Iterator[str | None], found: _Texts) -> Iterator[str]:
    for text in texts:
        if text and text.strip():
            yield text
        else:
            found.num_unreadable += 1


def _score(sets: list[_Texts], settings: ReaderSettings, config: RealismConfig, progress: Progress) -> _Found:
    found = _Found([np.zeros((texts.num_texts, 3)) for texts in sets])
    blocks = Blocks()
    for texts in sets:
        blocks.extend(texts.blocks)
    done = 0
    with _quiet_context():
        dataset = blocks.dataset().map_batches(
            TextScorer,
            fn_constructor_args=(settings,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
            num_gpus=1 if config.use_gpu else 0,
            compute=ActorPoolStrategy(size=min(config.workers, len(blocks))),
        )
        with closing(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))) as tables:
            for table in tables:
                _take(table, found)
                done += len(table)
                progress.update(done)
    return found


def _take(table: pa.Table, found: _Found) -> None:
    """Puts the numbers of one block of scores where they belong."""
    if trouble := next((trouble for trouble in table["trouble"].to_pylist() if trouble), ""):
        raise EvaluationError(trouble)
    numbers = np.column_stack([table[name].to_numpy() for name in ("nats", "tokens", "words")])
    sets, places = table["set"].to_numpy(), table["place"].to_numpy()
    for number in np.unique(sets):
        found.scores[number][places[sets == number]] = numbers[sets == number]
    for name in ("context_tokens", "stride_tokens", "first_token_scored"):
        found.reading[name] = table[name][0].as_py()


@contextmanager
def _quiet_context() -> Iterator[None]:
    """Ray Data without its own progress bars, and without its end after 30 minutes of a slow block."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    # It warns of bars that are switched off on purpose.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield
