"""Chapter 06 noise: bias and variance of what is estimated from samples."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
