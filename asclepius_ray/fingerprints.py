"""What each stage's artefact is made from, and whether a finished one still fits the run file."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.config import shown_name
from asclepius_ray.errors import ArtifactError, StageChangedError
from asclepius_ray.evaluation.realism_config import OWN_INPUT
from asclepius_ray.evaluation.realism_origin import realism_made_from
from asclepius_ray.evaluation.test_set import test_set_identity
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.run import Run, endpoints_of
from asclepius_ray.synthesis.case_reports import input_identity
from asclepius_ray.training.base_model_source import base_model_identity
from asclepius_ray.training.dataset_source import dataset_identity


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: its name in `--redo`, and the artefacts that it writes, the last one last."""

    name: str
    artifacts: tuple[str, ...]

    def finished(self, root: Folder) -> Manifest | None:
        """The manifest of the stage's last artefact, None if the stage is not finished."""
        folder = root.child(self.artifacts[-1])
        return read_manifest(folder) if is_finished(folder) else None


SYNTHESIZE = Stage("synthesize", ("questions", "rejected", "notes", "dataset"))
TRAIN = Stage("train", ("imported_dataset", "base_model", "tokens", "training", "model"))
EVALUATE = Stage("evaluate", ("evaluation",))
STAGES = (SYNTHESIZE, TRAIN, EVALUATE)


def made_from(stage: Stage, run: Run, root: Folder) -> dict[str, Any]:
    """Every setting and input that the stage's artefact depends on; its inputs must be finished."""
    if stage is SYNTHESIZE:
        return _synthesize(run)
    if stage is TRAIN:
        return _train(run, root)
    return _evaluate(run, root)


def check_unchanged(stage: Stage, finished: Manifest, expected: dict[str, Any]) -> None:
    """A StageChangedError says what changed since the stage was finished, and what to do."""
    changes = _differences(finished.made_from, expected)
    if not changes:
        return
    lines = "\n".join(f"  {change}" for change in changes)
    raise StageChangedError(
        f"the stage {stage.name} is finished, but with other settings:\n{lines}\n"
        f"use --redo {stage.name} to make it (and what was made from it) anew, or another root to keep both"
    )


def require_artifact(root: Folder, artifact: str, job: str) -> Manifest:
    """The manifest of what another job must have made; an ArtifactError names that job."""
    folder = root.child(artifact)
    if not is_finished(folder):
        raise ArtifactError(f"{folder.shown} is not finished; run the job {job} on this root first")
    return read_manifest(folder)


def _synthesize(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "input": run.input.fingerprint() | {"content": input_identity(run.input)},
        "teacher": _endpoint(run.teacher),
        "synthesis": run.synthesis.fingerprint(),
        "prompts": {name: prompt_hash(name) for name in ("note", "question", "answer")},
    }


def _train(run: Run, root: Folder) -> dict[str, Any]:
    return {
        "seed": run.seed,
        **_rows_to_train_on(run, root),
        "tokens": run.tokens.fingerprint(),
        "training": run.training.fingerprint(),
        "base_model_content": base_model_identity(run.training.base_model),
        "prompts": {"instruction": prompt_hash("instruction")},
    }


def _rows_to_train_on(run: Run, root: Folder) -> dict[str, Any]:
    if run.training.dataset:
        return {"training_dataset": {"content": dataset_identity(run.training.dataset)}}
    return {name: require_artifact(root, name, "synthesize").identity for name in ("dataset", "notes")}


def _evaluate(run: Run, root: Folder) -> dict[str, Any]:
    section = run.evaluation
    found: dict[str, Any] = {
        "seed": run.seed,
        "judge": _endpoint(run.judge),
        "evaluation": section.fingerprint()
        | {
            "test_set": shown_name(section.test_set),
            "endpoints": {name: _endpoint(config) for name, config in section.endpoints.items()},
            "judges": {name: _endpoint(config) for name, config in section.judges.items()},
        },
        "prompts": {name: prompt_hash(name) for name in ("instruction", "judge")},
        "test_set_content": "",
        "asked": {
            role: seat_identity(config) for role, config in endpoints_of(run).items() if role != "teacher"
        },
    }
    if section.has_own_table:
        found["test_set_content"] = test_set_identity(section)
    else:
        found["dataset"] = require_artifact(root, "dataset", "synthesize").identity
    if section.own_models:
        found["model"] = require_artifact(root, "model", "train").identity
        found["sequence_length"] = run.tokens.sequence_length
    if section.realism is not None:
        own_input = OWN_INPUT in {texts.path for texts in section.realism.texts.values()}
        identity = f"{input_identity(run.input)} {run.input.fingerprint()}" if own_input else ""
        found["realism"] = realism_made_from(root, section.realism, identity)
    return found


def served_identity(model: str) -> str:
    """What tells a model from another one that is served under the same name later; of the hub, the id."""
    from asclepius_ray.serving.model_source import locate_model, model_revision

    is_folder = "://" in model or Path(model).expanduser().is_dir()
    return sha256((model_revision(locate_model(model)) if is_folder else model).encode()).hexdigest()


def seat_identity(config: EndpointConfig) -> str:
    """What the answers of a section depend on beside the requests: the served model, or the address."""
    if config.model_path:
        return served_identity(config.model_path)
    return sha256(config.base_url.encode()).hexdigest()


def _endpoint(config: EndpointConfig) -> dict[str, Any]:
    return config.fingerprint() | {"model": config.model_name}


def _differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        where = f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}.")
        elif old != new:
            found.append(f"{where}: was {_short(old)}, is {_short(new)}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
