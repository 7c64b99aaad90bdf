"""Chapter 04 geometry: identities, one topology, long tails, the multinomial manifold."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
