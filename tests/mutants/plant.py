"""Plants one fault into wgpy's sources as they are imported."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import CodeType, ModuleType

from tests.mutants.faults import FAULTS, Fault, FaultDoesNotFit, altered


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
    """Alter the fault's module when it is imported, and import it now.

    Raises `FaultDoesNotFit` when the module does not exist, was imported before, or does
    not have the fault's text exactly once.
    """
    if fault.module in sys.modules:
        raise FaultDoesNotFit(
            f"fault {fault.name}: {fault.module} was imported before the fault was planted"
        )
    sys.meta_path.insert(0, _Finder(fault))
    try:
        __import__(fault.module)
    except ModuleNotFoundError as error:
        raise FaultDoesNotFit(f"fault {fault.name}: there is no module {fault.module}") from error


def plant_named(name: str) -> None:
    """The same for a program's argument: ends the program with one line on an error."""
    if name not in FAULTS:
        sys.exit(f"no fault is called {name!r} (see tests/mutants/faults.toml)")
    try:
        plant(FAULTS[name])
    except FaultDoesNotFit as error:
        sys.exit(str(error))
