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


def put_off(package: str, name: str) -> None:
    """Have a module of a package imported when something of it is used, and not before; unless it is there already."""
    full = f"{package}.{name}"
    if full not in sys.modules:
        sys.modules[full] = module = _StandIn(full)
        setattr(importlib.import_module(package), name, module)
