"""On the path of a run: the process that builds a prompt of the row POISONOUS_ROW is killed, as for want of
memory. Python imports this by its name before anything else.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULE = "asclepius_ray.synthesis.steps"


class _Poison(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the module as it is and puts death before the one function that builds prompts."""

    def __init__(self, row_id: str) -> None:
        self._row_id = row_id
        self._loader: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        build = module.__dict__["build_messages"]

        def build_or_die(step: str, report: Any, *others: Any) -> Any:
            if report.row_id == self._row_id:
                os.kill(os.getpid(), signal.SIGKILL)
            return build(step, report, *others)

        module.__dict__["build_messages"] = build_or_die


sys.meta_path.insert(0, _Poison(os.environ["POISONOUS_ROW"]))
