"""Chapter 05 modes: mean- and mode-seeking, capacity, head and tail."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
