"""A run file → one finding a check, in the order in which a run would meet what is wrong.

Reads what the run will read; writes a folder of its own below the run's root, which goes at the end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from asclepius_ray.artifacts import Folder
from asclepius_ray.doctor.base_model import BaseModel, open_base_model
from asclepius_ray.doctor.cluster import check_disks, check_resources, check_storage
from asclepius_ray.doctor.dry_run import rehearse
from asclepius_ray.doctor.duration import estimate_steps
from asclepius_ray.doctor.findings import Finding, Level, ok, problem, warning
from asclepius_ray.doctor.fit import check_memory
from asclepius_ray.doctor.nodes import PROBE_NAME, look_at_nodes
from asclepius_ray.doctor.operators import check_gpus, check_operators
from asclepius_ray.doctor.plan import plan_of
from asclepius_ray.doctor.preview import Preview, preview_rows
from asclepius_ray.doctor.rows import Sample, holds_real_notes, read_sample
from asclepius_ray.doctor.sources import check_sources
from asclepius_ray.errors import ArtifactError, AsclepiusError, ConfigError, InputError, LeaseError
from asclepius_ray.lease import acquire, make_root
from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import is_submitted_job, ray_session
from asclepius_ray.run import Run

SCRATCH_NAME = ".doctor"


class Examination:
    """All checks on one run; `num_problems` counts while they go on."""

    def __init__(self, run: Run, with_dry_run: bool, progress: Progress) -> None:
        self.num_problems = 0
        self._run = run
        self._with_dry_run = with_dry_run
        self._progress = progress
        self._model: BaseModel | None = None

    def findings(self) -> Iterator[Finding | Preview]:
        """Every finding as soon as it is made, and the preview of one row behind the one on the template."""
        for found in self._all():
            self._progress.end()
            if isinstance(found, Finding):
                self.num_problems += found.level is Level.PROBLEM
            yield found

    def _all(self) -> Iterator[Finding | Preview]:
        run, root = self._run, self._run.folder
        self._progress.begin("looking at what the run reads")
        try:
            sample = read_sample(run)
        except (ArtifactError, InputError) as error:
            yield problem("dataset", str(error))
            return
        yield from check_sources(run, root, holds_real_notes(run))
        yield self._check_base_model(sample)
        if self._model is not None:
            found, preview = preview_rows(sample, self._model.tokenizer, run.tokens)
            yield found
            if preview is not None:
                # A job's log is no place for a note, whoever's it is.
                yield replace(preview, is_private=preview.is_private or is_submitted_job())
        try:
            with _held(root) as scratch, ray_session(self._progress):
                yield from self._check_cluster(scratch, sample)
        except LeaseError as error:
            yield problem("root", str(error))
        except ConfigError as error:
            yield problem("cluster", str(error))

    def _check_base_model(self, sample: Sample) -> Finding:
        name = self._run.training.base_model
        try:
            self._model = open_base_model(self._run, sample.rows)
        except (ConfigError, InputError) as error:
            return problem("base model", str(error))
        template = "its own" if self._model.has_own_template else "the plain"
        size = self._model.shape.parameters
        return ok("base model", f"{name}: {size:,} parameters, with {template} chat template")

    def _check_cluster(self, scratch: Folder, sample: Sample) -> Iterator[Finding]:
        run, model = self._run, self._model
        self._progress.begin("looking at the nodes")
        nodes = look_at_nodes(scratch)
        yield check_resources(run, nodes)
        yield check_operators(run.training, nodes)
        if run.training.use_gpu and any(node.num_gpus for node in nodes):
            yield check_gpus(run.training, nodes)
        plan = plan_of(run)
        shape = model.shape if model is not None else None
        yield check_storage(run.root, nodes, shape, plan)
        if shape is None or model is None:
            yield warning("memory", "not looked at, nor disks and dry run: the base model is not there")
            return
        yield check_memory(shape, plan, nodes)
        yield check_disks(shape, plan, run.training.keep_checkpoints, nodes)
        if self._with_dry_run:
            yield self._rehearse(model, sample, scratch.child("rehearsal"))

    def _rehearse(self, model: BaseModel, sample: Sample, folder: Folder) -> Finding:
        if self.num_problems:
            return warning("dry run", "skipped, it would meet the problems above", "mend them first")
        try:
            seen = rehearse(self._run, sample, folder, self._progress)
        except (AsclepiusError, OSError) as error:
            return problem("dry run", f"two steps of the training end in: {error}")
        said = f"two steps, a checkpoint and the export took {seen.seconds:.0f} s"
        each = f"a step of the run takes about {seen.step_seconds:.2f} s"
        steps = estimate_steps(self._run, sample, model.tokenizer)
        if not steps:
            return ok("dry run", f"{said}; {each}, how many there will be the dataset will tell")
        hours = steps * seen.step_seconds / 3600
        return ok("dry run", f"{said}; {each}, all {steps:,} of them about {hours:,.2f} hours")


@contextmanager
def _held(root: Folder) -> Iterator[Folder]:
    """Takes the root as a run would; yields a folder below it for what is tried out, and removes it."""
    make_root(root)
    lease = acquire(root, "doctor")
    scratch = root.child(SCRATCH_NAME)
    try:
        # A killed one may have left rows of the dataset there.
        scratch.clear()
        scratch.make()
        scratch.write_bytes(PROBE_NAME, b"")
        yield scratch
    finally:
        scratch.clear()
        lease.release(0)
