"""The statements: a package per chapter, whose modules register their claims in `kdtheory.ledger.REGISTRY`."""

import importlib
import pkgutil

from kdtheory.ledger.claim import REGISTRY, Registry


def load(*names: str) -> Registry:
    """Import every module of the named chapters (by default of all) and return the registry that holds their claims."""
    for name in names or (module.name for module in pkgutil.iter_modules(__path__)):
        chapter = importlib.import_module(f"{__name__}.{name}")
        for module in pkgutil.iter_modules(getattr(chapter, "__path__", ())):  # chapter 09 is a single module
            importlib.import_module(f"{chapter.__name__}.{module.name}")
    return REGISTRY
