"""The order of the stages and what joins them: the lease, skipping what is finished, the endpoints.

Reads a run, writes every artefact of its root. Nothing else joins two stages.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pyarrow.parquet

from asclepius_ray.artifacts import Folder, Manifest
from asclepius_ray.chat.clinical import ask_clinical
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint, price_of
from asclepius_ray.endpoints import check_endpoint_config, open_endpoint, reach_endpoint
from asclepius_ray.errors import AsclepiusError, ConfigError, Interrupted
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.estimate import AskedTexts, RoleEstimate, estimate_evaluation, mean_texts
from asclepius_ray.fence import confirm_root
from asclepius_ray.fingerprints import (
    EVALUATE,
    STAGES,
    SYNTHESIZE,
    TRAIN,
    Stage,
    check_unchanged,
    made_from,
    require_artifact,
)
from asclepius_ray.lease import LEASE_NAME, acquire, join, make_root
from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import check_root_is_shared, is_submitted_job, ray_session
from asclepius_ray.records import Rejection
from asclepius_ray.run import Run, endpoints_of, read_secret, resolved_json
from asclepius_ray.seats import open_seats, serve_models
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.question_pool import FOLDER_NAME as QUESTIONS_NAME
from asclepius_ray.training.dataset_source import check_dataset

if TYPE_CHECKING:
    from asclepius_ray.synthesis.estimate import Estimate

ASKED_NAME = "asked.json"


@dataclass
class Work:
    """One job on one run: what it needs at hand."""

    run: Run
    root: Folder
    progress: Progress
    session: ExitStack
    """Holds the connection to Ray, once there is one."""
    connected: bool = False
    only_failed: bool = False
    """Failed rows of the synthesis are asked anew."""

    def connect(self) -> None:
        """Connects to Ray unless that is done: no job starts Ray twice, or for nothing."""
        if not self.connected:
            from asclepius_ray.node_watch import watching_nodes

            self.session.enter_context(ray_session(self.progress))
            self.connected = True
            self.session.enter_context(watching_nodes(self.root.run_label))
            check_root_is_shared(self.root, LEASE_NAME)


@contextmanager
def _holding(run: Run, purpose: str, progress: Progress) -> Iterator[Work]:
    """The root, made and leased; gives it back with the result, whatever happens.

    A submitted job whose twin is at work follows it, and exits with its code.
    """
    root = run.folder
    make_root(root)
    lease = join(root, purpose, progress.say) if is_submitted_job() else acquire(root, purpose)
    if isinstance(lease, int):
        raise SystemExit(lease)
    exit_code = 1
    with ExitStack() as session:
        try:
            yield Work(run, root, progress, session)
            exit_code = 0
        except (AsclepiusError, SystemExit, KeyboardInterrupt) as end:
            exit_code = _exit_code_of(end)
            raise
        finally:
            # The lease before Ray: `ray job stop` leaves three seconds, and Ray's own end may take longer.
            lease.release(exit_code)


def _exit_code_of(end: AsclepiusError | SystemExit | KeyboardInterrupt) -> int:
    """What the command ends with, so that whoever follows this run ends with the same."""
    if isinstance(end, AsclepiusError):
        return end.exit_code
    if isinstance(end, KeyboardInterrupt):
        return Interrupted.exit_code
    # As Python reads it: none is 0, and words are 1.
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def run_job(job: str, run: Run, redo: str, progress: Progress, only_failed: bool = False) -> None:
    """Runs a job of `JOBS` except "serve".

    `only_failed` asks the teacher anew for the rows that failed, and makes what follows anew.
    """
    purpose = _purpose(run, job, redo, only_failed)
    stages = STAGES if job == "pipeline" else tuple(stage for stage in STAGES if stage.name == job)
    redo = _redo_for_failed(run, stages, redo) if only_failed else redo
    _check_redo(redo, stages)
    with _holding(run, purpose, progress) as work:
        work.only_failed = only_failed
        redone = _from_stage_on(redo)
        _check_settings(work, stages, redone)
        # Only now: nothing is thrown away for a run that could not have begun.
        _clear(work, redone)
        if run.serving.model:
            progress.say(
                "serving.model is for the job serve: this job serves and evaluates the run's own models"
            )
        work.root.write_bytes("run.json", resolved_json(run).encode())
        for stage in stages:
            _run_stage(work, stage)
        if job == "pipeline":
            _ask_once(work)
        _write_report(work)


def serve(run: Run, progress: Progress) -> None:
    """Serves the run's model, or `serving.model`, until a signal."""
    from asclepius_ray.node_watch import watching_nodes
    from asclepius_ray.serving.stage import serve_until_stopped

    model = run.serving.model or run.folder.child("model").uri
    if not run.serving.model:
        require_artifact(run.folder, "model", "train")
    serving = run.serving.model_copy(update={"keys": run.serving.keys or run.folder.child("keys.json").uri})
    with ray_session(progress, serves=True), watching_nodes(run.folder.run_label):
        serve_until_stopped({run.name: model}, serving, read_secret(serving.api_key_env), progress)


def _purpose(run: Run, job: str, redo: str = "", only_failed: bool = False) -> str:
    """The job, the hash of its settings, and what is to be made anew: who follows wants all the same."""
    anew = (f":redo {redo}" if redo else "") + (":only failed" if only_failed else "")
    return f"{job}:{sha256(resolved_json(run).encode()).hexdigest()[:16]}{anew}"


def _check_redo(redo: str, stages: tuple[Stage, ...]) -> None:
    names = [stage.name for stage in stages]
    if redo and redo not in names:
        raise ConfigError(f"--redo {redo!r}: this job has no such stage; it has {', '.join(names)}")


def _redo_for_failed(run: Run, stages: tuple[Stage, ...], redo: str) -> str:
    """The stage to be made anew so that its failed rows are asked again; "" where it is enough to go on."""
    if redo or SYNTHESIZE not in stages:
        raise ConfigError("--only failed is for the jobs synthesize and pipeline, and goes without --redo")
    finished = SYNTHESIZE.finished(run.folder)
    if finished is not None and finished.counts["failed"]:
        return SYNTHESIZE.name
    if all(stage.finished(run.folder) for stage in stages):
        raise ConfigError(f"--only failed: no row of {run.folder.child('dataset').uri} has failed")
    # Nothing was made yet, or the same command was here before and was stopped while it made what follows.
    return ""


def _from_stage_on(redo: str) -> tuple[Stage, ...]:
    """The stage to be made anew, and all that are made from it."""
    names = [stage.name for stage in STAGES]
    return STAGES[names.index(redo) :] if redo else ()


def _clear(work: Work, stages: tuple[Stage, ...]) -> None:
    """Removes the stages' artefacts, the last first, so that none outlives what it was made from.

    The frozen questions stay where only failed rows are asked anew: with those of mended rows among them the
    others would see other examples, and be asked anew too.
    """
    kept = {QUESTIONS_NAME} if work.only_failed else set()
    for stage in reversed(stages):
        work.progress.say(f"{stage.name}: removed, to be made anew")
        for artifact in reversed(stage.artifacts):
            if artifact not in kept:
                work.root.child(artifact).clear()


def _check_settings(work: Work, stages: tuple[Stage, ...], redone: tuple[Stage, ...]) -> None:
    """Finds what would stop the job later, before anything is started, removed or paid for."""
    for stage in STAGES:
        # A stage that is made anew may be damaged or of another format: that is what --redo is for.
        finished = None if stage in redone else stage.finished(work.root)
        if finished is None:
            break
        if stage in stages:
            check_unchanged(stage, finished, made_from(stage, work.run, work.root))
    unfinished = [stage for stage in stages if stage in redone or stage.finished(work.root) is None]
    _check_endpoints(work, unfinished, redone)
    if EVALUATE in unfinished:
        _check_what_is_asked(work.run.evaluation)
    if SYNTHESIZE in unfinished:
        # Path, format and columns are looked at here; a record is read only when one is asked for.
        read_case_reports(work.run.input)
    if TRAIN in unfinished:
        _check_what_is_trained(work.run)
    for config in _endpoints_of(work.run, unfinished).values():
        reach_endpoint(config)


def _check_endpoints(work: Work, unfinished: list[Stage], redone: tuple[Stage, ...]) -> None:
    for role, config in _endpoints_of(work.run, unfinished).items():
        real_notes = _holds_real_notes(work, redone) if role == "teacher" else _asks_real_notes(work, redone)
        check_endpoint_config(config, role, real_notes)


def _holds_real_notes(work: Work, redone: tuple[Stage, ...]) -> bool:
    """Whether what will be sent is real notes: by the run file, or by the dataset that is there already."""
    finished = None if SYNTHESIZE in redone else SYNTHESIZE.finished(work.root)
    kinds = {work.run.input.kind, finished.made_from["input"]["kind"] if finished else ""}
    return "notes" in kinds


def _asks_real_notes(work: Work, redone: tuple[Stage, ...] = ()) -> bool:
    """Whether the evaluation sends real notes."""
    section = work.run.evaluation
    return section.real_notes if section.has_own_table else _holds_real_notes(work, redone)


def _endpoints_of(run: Run, stages: list[Stage]) -> dict[str, EndpointConfig]:
    """Those that these stages ask, under the paths of their sections."""
    return {
        role: config
        for role, config in endpoints_of(run).items()
        if (SYNTHESIZE if role == "teacher" else EVALUATE) in stages
    }


def _check_what_is_asked(section: EvaluationConfig) -> None:
    from asclepius_ray.evaluation.realism_origin import check_realism
    from asclepius_ray.evaluation.test_set import check_test_set

    check_test_set(section)
    if section.realism is not None:
        check_realism(section.realism, read_secret("HF_TOKEN"))


def _check_what_is_trained(run: Run) -> None:
    from asclepius_ray.training.base_model_source import check_base_model

    check_base_model(run.training.base_model)
    if run.training.dataset:
        check_dataset(run.training.dataset)


def _run_stage(work: Work, stage: Stage) -> None:
    confirm_root()
    finished = stage.finished(work.root)
    expected = made_from(stage, work.run, work.root)
    if finished is not None:
        check_unchanged(stage, finished, expected)
        work.progress.say(f"{stage.name}: finished already, skipped")
        return
    work.connect()
    started = time.monotonic()
    _MAKERS[stage](work, expected)
    work.progress.end()
    work.progress.say(f"{stage.name}: done in {time.monotonic() - started:.0f} s")


def _synthesize(work: Work, expected: dict[str, Any]) -> Manifest:
    from asclepius_ray.synthesis.stage import Order, synthesize

    run = work.run
    with open_endpoint(run.teacher, run.serving, work.progress) as teacher:
        order = Order(run.input, run.synthesis, teacher, run.seed, expected)
        return synthesize(work.root, order, work.progress, work.only_failed)


def estimate(run: Run, num_sampled: int, progress: Progress) -> "tuple[Estimate | None, list[RoleEstimate]]":
    """What the synthesis will need, and the evaluation.

    A few rows of the input are asked, and the answers stay paid; for the evaluation nobody is asked. A run
    file with a table to evaluate on and without an input has no synthesis: None.
    """
    only_evaluation = run.evaluation.has_own_table and not run.input.path
    synthesis = None if only_evaluation else _estimate_synthesis(run, num_sampled, progress)
    if synthesis is None:
        return None, estimate_evaluation_of(run, None)
    num_rows = synthesis.num_rows * synthesis.num_ok / synthesis.num_sampled
    return synthesis, estimate_evaluation_of(
        run, AskedTexts(num_rows, synthesis.note_characters, synthesis.question_characters)
    )


def estimate_evaluation_of(run: Run, made: AskedTexts | None) -> list[RoleEstimate]:
    """What the evaluation will need; nobody is asked.

    `made`: all rows that the synthesis is expected to make, where the rows to evaluate on are not there yet.
    """
    from asclepius_ray.evaluation.test_set import read_test_set

    section = run.evaluation
    if section.has_own_table or SYNTHESIZE.finished(run.folder) is not None:
        items = read_test_set(run.folder, section).items
        notes, questions = [item.note for item in items], [item.question for item in items]
        texts = mean_texts(notes, questions, len(items))
    else:
        assert made is not None
        held_out = made.num_items * run.synthesis.validation_share
        texts = replace(made, num_items=min(held_out, section.limit or held_out))
    return estimate_evaluation(texts, section, run.judge)


def _estimate_synthesis(run: Run, num_sampled: int, progress: Progress) -> "Estimate":
    from asclepius_ray.synthesis.estimate import estimate as estimate_synthesis
    from asclepius_ray.synthesis.stage import Order

    with _holding(run, _purpose(run, "estimate"), progress) as work:
        _check_settings(work, (SYNTHESIZE,), (SYNTHESIZE,))
        work.connect()
        # A sample that waits for a provider's batches would come a day later.
        asked = run.teacher.model_copy(update={"transport": "requests"})
        with open_endpoint(asked, run.serving, progress) as teacher:
            order = Order(run.input, run.synthesis, teacher, run.seed, {})
            return estimate_synthesis(work.root, order, num_sampled, progress, price_of(run.teacher))


def _train(work: Work, expected: dict[str, Any]) -> Manifest:
    from asclepius_ray.training.stage import train

    run = work.run
    return train(work.root, run.tokens, run.training, run.seed, work.progress, expected)


def _evaluate(work: Work, expected: dict[str, Any]) -> Manifest:
    from asclepius_ray.evaluation.realism import measure_realism
    from asclepius_ray.evaluation.stage import EvaluationPlan, Measured, evaluate, measure_losses
    from asclepius_ray.evaluation.test_set import read_test_set

    run, section = work.run, work.run.evaluation
    test_set = read_test_set(work.root, section)
    # Before the models are served: their replicas would hold the CPUs, or the GPU, that these wait for.
    losses = measure_losses(work.root, section, test_set, run.tokens.sequence_length, work.progress)
    realism = None
    if section.realism is not None:
        realism = measure_realism(
            work.root, section.realism, run.seed, work.progress, partial(_input_texts, run)
        )
    with open_seats(run, work.progress) as (models, judges):
        plan = EvaluationPlan(
            run.name,
            section,
            models,
            judges,
            run.seed,
            run.tokens.sequence_length,
            _asks_real_notes(work),
        )
        measured = Measured(losses, realism)
        manifest = evaluate(work.root, plan, test_set, measured, expected, work.progress)
        if "trained" in models and _held_out_table(work.root.child("dataset")):
            _ask(work, models["trained"].endpoint)
    return manifest


def _input_texts(run: Run) -> Iterator[str | None]:
    """The run's own input as texts; None for a row that is none."""
    for record in read_case_reports(run.input):
        yield None if isinstance(record, Rejection) else record.text


def _ask_once(work: Work) -> None:
    """Asks the served model one question, unless the evaluation did so already, or its texts were purged."""
    from asclepius_ray.report.evaluation_artefacts import is_purged

    evaluation = work.root.child("evaluation")
    if evaluation.exists(ASKED_NAME) or is_purged(evaluation):
        return
    if not _held_out_table(work.root.child("dataset")):
        return
    work.connect()
    with serve_models(work.run, {"trained": work.root.child("model").uri}, work.progress) as models:
        _ask(work, models["trained"])


def _held_out_table(dataset: Folder) -> str:
    """The first table of held-out rows; "" where there is none, as where the dataset came from elsewhere."""
    return next((name for name in dataset.names() if name.startswith("validation-")), "")


def _ask(work: Work, model: Endpoint) -> None:
    """Sends the first held-out note and its question to the clinical route, and keeps the answer."""
    work.progress.begin("asking the served model")
    dataset = work.root.child("dataset")
    filesystem, path = dataset.filesystem()
    name = _held_out_table(dataset)
    row = pyarrow.parquet.read_table(f"{path}/{name}", filesystem=filesystem).slice(0, 1).to_pylist()[0]
    answer = ask_clinical(model.base_url, model.api_key, row["note"], row["question"])
    asked = {"question": row["question"], "answer": answer, "task": row["task"], "asked_unix": time.time()}
    work.root.child("evaluation").write_bytes(ASKED_NAME, json.dumps(asked, indent=2).encode())


def _write_report(work: Work) -> None:
    from asclepius_ray.report.page import write_report

    work.progress.begin("writing the report")
    confirm_root()
    write_report(work.root)


_MAKERS: dict[Stage, Callable[[Work, dict[str, Any]], Manifest]] = {
    SYNTHESIZE: _synthesize,
    TRAIN: _train,
    EVALUATE: _evaluate,
}
