"""What the checks say of nodes that lack something: each fault seeded once into a cluster that is well."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from asclepius_ray.doctor.cluster import check_disks, check_resources, check_storage
from asclepius_ray.doctor.findings import Finding, Level
from asclepius_ray.doctor.fit import GIB, check_memory, num_fitting
from asclepius_ray.doctor.memory import ModelShape, Plan
from asclepius_ray.doctor.nodes import PROGRAMS, Node, StorageLook
from asclepius_ray.doctor.operators import check_operators, operators_to_build
from asclepius_ray.run import Run, load_run
from asclepius_ray.training.deepspeed_config import deepspeed_config

MODEL = ModelShape(7_000_000_000, 7_000_000_000, 131_000_000, 4096, 11008, 32, 32000)
PLAN = Plan(3, 8, "bf16", 2, 2048, gradient_checkpointing=True, on_gpu=True)
STORAGE = StorageLook(sees_driver=True, failure="", bytes_per_second=500e6, free_bytes=2000 * GIB)
NODE = Node(
    node_id="0" * 56,
    name="node-0",
    num_cpus=96,
    num_gpus=8,
    memory_bytes=1000 * GIB,
    free_memory_bytes=900 * GIB,
    gpu_memory_bytes=(80 * GIB,) * 8,
    programs=frozenset(PROGRAMS),
    scratch_folder="/tmp",
    scratch_bytes=500 * GIB,
    storage=STORAGE,
)
URI = "/shared/run"


def run_of(*overrides: str) -> Run:
    return load_run("jobs/runs/asclepius-7b.toml", list(overrides))


def resources(node: Node, plan: Plan) -> Finding:
    return check_resources(run_of(), [node])


def memory(node: Node, plan: Plan) -> Finding:
    return check_memory(MODEL, plan, [node])


def operators(node: Node, plan: Plan) -> Finding:
    quantized = "training.deepspeed={zero_optimization={zero_quantized_weights=true}}"
    return check_operators(run_of(quantized).training, [node])


def storage(node: Node, plan: Plan) -> Finding:
    return check_storage(URI, [NODE, node], MODEL, plan)


def disks(node: Node, plan: Plan) -> Finding:
    return check_disks(MODEL, plan, 2, [node])


HEAD = replace(NODE, name="head", num_cpus=0, num_gpus=0, gpu_memory_bytes=())


def test_what_an_autoscaler_may_bring_is_no_problem() -> None:
    for nodes in ([HEAD], [HEAD, replace(NODE, num_gpus=4, gpu_memory_bytes=(80 * GIB,) * 4)]):
        assert check_resources(run_of(), nodes).level is Level.WARNING
        assert check_memory(MODEL, PLAN, nodes).level is Level.WARNING
    assert check_resources(run_of(), [HEAD, NODE]).level is Level.OK
    assert check_memory(MODEL, PLAN, [HEAD, NODE]).level is Level.OK


FAULTS: dict[str, tuple[Callable[[Node, Plan], Finding], Node, Plan, str, str]] = {
    "fewer GPUs than workers": (
        resources,
        replace(NODE, num_gpus=7),
        PLAN,
        "wait without end",
        "training.workers",
    ),
    "no GPU to serve on": (resources, replace(NODE, num_gpus=0), PLAN, "GPU", "start more nodes"),
    "no CPU for the replicas": (resources, replace(NODE, num_cpus=1), PLAN, "evaluation serves", "replicas"),
    "GPUs too small": (
        memory,
        replace(NODE, gpu_memory_bytes=(12 * GIB,) * 8),
        PLAN,
        "too little",
        "offload",
    ),
    "weights on every GPU": (memory, NODE, PLAN.at_stage(0), "too little", "zero_stage"),
    "activations too large": (
        memory,
        NODE,
        replace(PLAN, gradient_checkpointing=False, sequence_length=32768),
        "too little",
        "gradient_checkpointing = true",
    ),
    "no host memory for what is offloaded": (
        memory,
        replace(NODE, free_memory_bytes=60 * GIB),
        replace(PLAN, optimizer_offload=True),
        "too little",
        "more or larger nodes",
    ),
    "no compiler for an operator": (
        operators,
        replace(NODE, programs=frozenset({"ninja"})),
        PLAN,
        "no c++ and no nvcc",
        "install",
    ),
    "root not shared": (
        storage,
        replace(NODE, storage=replace(STORAGE, sees_driver=False)),
        PLAN,
        "1 of the 2 nodes do not see",
        "s3://",
    ),
    "root not writable from a node": (
        storage,
        replace(NODE, storage=replace(STORAGE, failure="Permission denied")),
        PLAN,
        "node-0: Permission denied",
        "right to write",
    ),
    "no room for a checkpoint": (
        disks,
        replace(NODE, scratch_bytes=50 * GIB),
        PLAN,
        "50.0 GiB free",
        "TMPDIR",
    ),
    "no room for the run": (
        disks,
        replace(NODE, storage=replace(STORAGE, free_bytes=100 * GIB)),
        PLAN,
        "100.0 GiB free",
        "keep_checkpoints",
    ),
}


@pytest.mark.parametrize("check", [resources, memory, operators, storage, disks])
def test_a_cluster_that_has_all_is_found_well(check: Callable[[Node, Plan], Finding]) -> None:
    assert check(NODE, PLAN).level is Level.OK


@pytest.mark.parametrize(("check", "node", "plan", "said", "advice"), FAULTS.values(), ids=FAULTS)
def test_a_seeded_fault_is_found_and_told_with_what_to_do(
    check: Callable[[Node, Plan], Finding], node: Node, plan: Plan, said: str, advice: str
) -> None:
    found = check(node, plan)
    assert found.level is Level.PROBLEM
    assert said in found.said
    assert advice in found.advice


def test_what_is_advised_does_fit() -> None:
    tight = replace(NODE, gpu_memory_bytes=(32 * GIB,) * 8)
    plan = replace(PLAN, zero_stage=0, gradient_checkpointing=False)
    advice = check_memory(MODEL, plan, [tight]).advice
    assert "training.gradient_checkpointing = true" in advice
    assert "training.zero_stage = 3" in advice
    advised = replace(plan, zero_stage=3, gradient_checkpointing=True)
    assert num_fitting(MODEL, plan, [tight]) == 0
    assert num_fitting(MODEL, advised, [tight]) == plan.workers


def test_the_training_of_the_papers_run_files_builds_no_operator() -> None:
    for name in ("asclepius-7b", "asclepius-13b", "llama3-8b", "quickstart"):
        training = load_run(f"jobs/runs/{name}.toml").training
        assert operators_to_build(deepspeed_config(training, 8)) == {}


def test_slow_storage_is_a_warning_with_the_time_of_a_checkpoint() -> None:
    slow = replace(NODE, storage=replace(STORAGE, bytes_per_second=10e6))
    found = storage(slow, PLAN)
    assert found.level is Level.WARNING
    assert "10 MB/s" in found.said
    assert "takes about 1,050 s" in found.said


def test_gpus_of_which_nothing_is_known_are_no_reason_to_refuse() -> None:
    assert memory(replace(NODE, gpu_memory_bytes=()), PLAN).level is Level.WARNING


def test_the_papers_run_files_fit_on_the_nodes_that_they_name() -> None:
    from asclepius_ray.doctor.plan import plan_of

    for name, parameters in (("asclepius-7b", 6_740_000_000), ("asclepius-13b", 13_000_000_000)):
        run = load_run(f"jobs/runs/{name}.toml")
        shape = replace(MODEL, parameters=parameters, trainable_parameters=parameters)
        found = check_memory(shape, plan_of(run), [NODE])
        assert found.level is Level.OK, found
