from __future__ import annotations

from dataclasses import replace

import pytest

from kdtheory.students import store, tuning
from kdtheory.students.progress import Bars
from kdtheory.students.tasks import Workspace


def rows(**objectives: dict[float, float]) -> list[dict]:
    return [
        {"loss": loss, "learning_rate": rate, "objective": value}
        for loss, table in objectives.items()
        for rate, value in table.items()
    ]


def test_each_loss_gets_its_own_best():
    table = rows(
        fkl={0.1: 2.0, 0.2: 1.0, 0.4: 3.0}, w1={0.1: 0.5, 0.2: 0.6, 0.4: float("nan")}, rkl={0.1: 1.0, 0.2: 1.0}
    )
    assert tuning.choose(table) == {"fkl": 0.2, "w1": 0.1, "rkl": 0.1}
    assert tuning.at_edge({"fkl": 0.2, "w1": 0.1}, (0.1, 0.2, 0.4)) == ["w1"]


def test_a_loss_that_always_diverges_is_named():
    with pytest.raises(ValueError, match="w1: no learning rate"):
        tuning.choose(rows(w1={0.1: float("nan"), 0.2: float("inf")}))


@pytest.fixture
def grid(workspace) -> Workspace:
    profile = replace(workspace.profile, learning_rates=(0.003, 0.03), losses=("fkl", "rkl"))
    return Workspace(workspace.folder, profile, workspace.tokens)


def test_tuning_is_stored_and_used_again(grid):
    found = tuning.rates(grid, bars=Bars())
    payload = store.read_json(grid.folder.parent / tuning.FILE, key=grid.profile.hash)
    assert payload["seed"] == grid.profile.tuning_seed
    assert payload["seed"] not in grid.profile.seeds
    assert len(payload["table"]) == 4
    for loss, rate in found.chosen.items():
        mine = {row["learning_rate"]: row["objective"] for row in payload["table"] if row["loss"] == loss}
        assert mine[rate] == min(mine.values())
    again = tuning.rates(grid, bars=Bars())
    assert again.chosen == found.chosen
    assert again.source.startswith("stored")


def test_rates_for_other_settings_are_not_used(grid):
    key = replace(grid.profile, steps=16).hash
    path = grid.folder.parent / tuning.FILE
    absurd = [{"loss": loss, "learning_rate": 9.0, "objective": 0.0} for loss in ("fkl", "rkl")]
    store.write_json(path, {"chosen": {"fkl": 9.0, "rkl": 9.0}, "table": absurd}, key=key)
    assert set(tuning.rates(grid, bars=Bars()).chosen.values()) <= set(grid.profile.learning_rates)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(store.StoredFileError, match="truncated"):
        tuning.rates(grid, bars=Bars())


def test_only_losses_without_a_rate_are_tuned(grid):
    """A new loss leaves the others' rates as they were chosen; the control: tuning anew does not."""
    absurd = [{"loss": "fkl", "learning_rate": 9.0, "objective": 0.0}]
    path = grid.folder.parent / tuning.FILE
    store.write_json(path, {"chosen": {"fkl": 9.0}, "table": absurd}, key=grid.profile.hash)
    found = tuning.rates(grid, bars=Bars()).chosen
    assert found["fkl"] == 9.0
    assert found["rkl"] in grid.profile.learning_rates
    assert {row["loss"] for row in store.read_json(path, key=grid.profile.hash)["table"]} == {"fkl", "rkl"}
    assert tuning.rates(grid, bars=Bars(), anew=True).chosen["fkl"] in grid.profile.learning_rates


def test_one_rate_needs_no_tuning(workspace):
    found = tuning.rates(workspace, bars=Bars())
    assert set(found.chosen.values()) == set(workspace.profile.learning_rates)
    assert "not tuned" in found.source
