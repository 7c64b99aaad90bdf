"""A cell tagged `gpu` is skipped by nbval where there is no GPU."""

import pytest


def pytest_collection_modifyitems(items):
    tagged = [item for item in items if "gpu" in getattr(getattr(item, "cell", None), "metadata", {}).get("tags", [])]
    if tagged and not _has_gpu():
        for item in tagged:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def _has_gpu():
    import torch

    return torch.cuda.is_available()
