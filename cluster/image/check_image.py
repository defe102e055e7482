"""Ends the image's build where the image does not hold what its list says, or cannot import it.

python check_image.py REQUIREMENTS
"""

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PYTHON = "3.11"
MODULES = (
    "asclepius_ray.cli",
    "boto3",
    "deepspeed",
    "googleapiclient.discovery",
    "ray.serve",
    "torch",
    "vllm",
)
"""Each is imported: what is missing for it is missing on every node."""


def wrong_versions(lines: Iterable[str]) -> Iterator[str]:
    """What differs from the pins, one line each."""
    for line in lines:
        name, pinned, wanted = line.strip().partition("==")
        if not pinned or name.startswith("#"):
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        # A build such as +cu130 is of the same version.
        if found.partition("+")[0] != wanted:
            yield f"{name} is {found}, and not {wanted}"


def import_errors(modules: Iterable[str]) -> Iterator[str]:
    """What cannot be imported, one line each."""
    for module in modules:
        try:
            import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            yield f"{module} cannot be imported: {error}"


def main(requirements: str) -> int:
    lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    wrong = [*wrong_versions(lines), *import_errors(MODULES)]
    if not platform.python_version().startswith(f"{PYTHON}."):
        wrong.append(f"Python is {platform.python_version()}, and not {PYTHON}")
    sys.stderr.writelines(f"error: {line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
