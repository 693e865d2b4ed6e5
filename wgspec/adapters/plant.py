"""Plants one fault into a program's sources as they are imported.

A fault names a module, a piece of its source and what to write instead.  The piece must
occur exactly once: a fault that no longer fits the source is an error, not a fault that
nobody catches.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, ModuleType

from wgspec.mutants import Fault, FaultDoesNotFit, altered


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the altered source; never reads or writes a cached compilation."""

    def __init__(self, fault: Fault, path: str) -> None:
        super().__init__(fault.module, path)
        self._fault = fault

    def get_code(self, fullname: str) -> CodeType:
        source = altered(self._fault, self.get_data(self.path).decode())
        code: CodeType = compile(source, f"{fullname} ({self._fault.name})", "exec", 0, True)
        return code


class _Finder(MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _Loader(self._fault, spec.origin)
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


def plant(fault: Fault) -> None:
    """Alter the fault's module when it is imported, and import it now."""
    if fault.module in sys.modules:
        raise FaultDoesNotFit(f"{fault.module} was imported before the fault was planted")
    sys.meta_path.insert(0, _Finder(fault))
    __import__(fault.module)
