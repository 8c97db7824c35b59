"""A module's stand-in: what a package imports and does not use here is imported when something of it is used."""

import importlib
import sys
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    """Has nothing itself, and looks for it in the module."""

    def __getattr__(self, name: str) -> Any:
        # Python asks for these at each import.
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def put_off(name: str) -> None:
    """Have a module imported when something of it is used, and not before; unless it is there already."""
    if name not in sys.modules:
        sys.modules[name] = module = _StandIn(name)
        package, _, last = name.rpartition(".")
        if package:
            setattr(importlib.import_module(package), last, module)
