"""The statements: one module per chapter, each registering its claims in `kdtheory.ledger.REGISTRY`."""

import importlib
import pkgutil

from kdtheory.ledger.claim import REGISTRY, Registry

_HELPERS = ("oracles",)  # of several chapters; they hold no claims


def modules() -> tuple[str, ...]:
    """Names of the chapters that have claims, without importing them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS))


def load(*names: str) -> Registry:
    """Import the named chapters (all of them by default) and return the registry that holds their claims."""
    for name in names or modules():
        importlib.import_module(f"{__name__}.{name}")
    return REGISTRY
