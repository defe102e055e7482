"""What a run gets from elsewhere: its input, its teacher, its judge."""

from collections.abc import Iterator

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.doctor.findings import Finding, ok, problem, warning
from asclepius_ray.endpoints import check_endpoint_config, reach_endpoint
from asclepius_ray.errors import ConfigError, EndpointError, InputError, ServingError
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.evaluation.realism_origin import check_realism
from asclepius_ray.evaluation.test_set import check_test_set
from asclepius_ray.fingerprints import EVALUATE, SYNTHESIZE
from asclepius_ray.run import Run, endpoints_of, read_secret
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.training.dataset_source import check_dataset


def check_sources(run: Run, root: Folder, has_real_notes: bool) -> Iterator[Finding]:
    """One finding each; what a finished stage has used already is not looked at again."""
    if SYNTHESIZE.finished(root) is None:
        yield _check_input(run)
        yield _check_endpoint("teacher", run.teacher, has_real_notes)
    else:
        yield ok("input", "not needed: the dataset is finished")
    if run.training.dataset:
        yield _check_dataset(run.training.dataset)
    if EVALUATE.finished(root) is None:
        yield from _check_evaluation(run, has_real_notes)


def _check_evaluation(run: Run, has_real_notes: bool) -> Iterator[Finding]:
    section = run.evaluation
    if section.has_own_table:
        has_real_notes = section.real_notes
        yield _check_test_set(section)
    if section.realism is not None:
        yield _check_realism(section.realism)
    for role, config in endpoints_of(run).items():
        if role != "teacher":
            yield _check_endpoint(role, config, has_real_notes)


def _check_realism(section: RealismConfig) -> Finding:
    try:
        check_realism(section, read_secret("HF_TOKEN"))
    except (InputError, ConfigError) as error:
        return problem("realism", str(error))
    return ok("realism", f"the model and {len(section.texts)} set(s) of texts are there")


def _check_test_set(section: EvaluationConfig) -> Finding:
    try:
        check_test_set(section)
    except InputError as error:
        return problem("test set", str(error))
    return ok("test set", f"{section.test_set} can be read, its columns are known")


def _check_input(run: Run) -> Finding:
    if not run.input.path:
        return warning("input", "input.path is not set", "the jobs synthesize and pipeline need it")
    try:
        # Path, format and columns, and that there is a first row.
        read_case_reports(run.input)
    except (InputError, ConfigError) as error:
        return problem("input", str(error))
    return ok("input", f"{run.input.path} can be read, its columns are known")


def _check_dataset(path: str) -> Finding:
    try:
        check_dataset(path)
    except InputError as error:
        return problem("dataset", str(error))
    return ok("dataset", f"{path} can be read, its columns are known")


def _check_endpoint(role: str, config: EndpointConfig, has_real_notes: bool) -> Finding:
    if not (config.base_url or config.model_path):
        job = "synthesize" if role == "teacher" else "evaluate"
        return warning(role, f"{role}.base_url is not set", f"the jobs {job} and pipeline need it")
    try:
        check_endpoint_config(config, role, has_real_notes)
        reach_endpoint(config)
    except (ConfigError, EndpointError, ServingError) as error:
        return problem(role, str(error))
    if config.starts_offline_teacher:
        return ok(role, "the offline rules, which start with the run")
    where = config.model_path or config.base_url
    return ok(role, f"{config.model_name or where} answers at {where}")
