"""Figures and tables of the students on real text: what they show is what the run says, for any losses and seeds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdtheory import figures
from kdtheory.figures import save, style, text_curves, text_data, text_front, text_matrix, text_spread, text_tables
from kdtheory.publish import generated
from kdtheory.students import pairs, published
from kdtheory.students.evaluate import METRICS

LEVELS = {"fkl": 1.0, "rkl": 1.2, "w1": 0.8, "w1+hard": 0.9, "fkl/16": 1.1, "sinkd/16": 1.5}
TEN = ("fkl", "rkl", "w1", "w1+hard")
TEXT = sorted(name for name, plot in figures.load().items() if plot.data.place == text_data.PLACE)
SETTINGS = {"name": "made up", "seeds": list(range(10)), "steps": 400, "vocabulary": 7}


def seeds_of(loss):
    return range(10 if loss in TEN else 3)


def results_of(losses):
    """A metric is the loss's level times the seed's, which pairing has to remove, times a little of its own."""
    noise = np.random.default_rng(0)
    rows = []
    for loss in losses:
        for seed in seeds_of(loss):
            values = {name: LEVELS[loss] * (1 + seed) * (1 + 1e-5 * noise.normal()) for name in METRICS}
            rows.append({"loss": loss, "seed": seed, **values})
    return pd.DataFrame(rows)


def curves_of(losses):
    rows = []
    for loss in losses:
        for seed in seeds_of(loss):
            for step, objective in ((0, 2.0), (300, 1.0), (400, 1.0)):
                row = {"loss": loss, "seed": seed, "step": step, "tokens": 10 * step, "cpu_seconds": step / 100 + seed}
                share = 0.5 + 0.01 * seed if loss in ("fkl", "rkl") else np.nan
                held_out = {
                    "fkl": LEVELS[loss] * objective + seed,
                    "cross_entropy": objective + LEVELS[loss],
                    "head_share": share,
                }
                rows.append({**row, "objective": objective, **held_out})
    return pd.DataFrame(rows)


def stored(folder, losses=tuple(LEVELS)):
    """A data folder with a run of these losses."""
    facts = {"settings": SETTINGS, "settings_sha256": "0" * 64, "device": ["none"]}
    published.write(folder / text_data.PLACE, results_of(losses), curves_of(losses), published.decide, facts)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("data"))


# -- every picture, for any losses -------------------------------------------------------------------------------------
@pytest.mark.parametrize("losses", [tuple(LEVELS), ("fkl", "rkl", "sinkd/16")])
def test_each_draws_for_any_losses(losses, tmp_path):
    folder = stored(tmp_path / "data", losses)
    written = figures.build(tmp_path / "out", TEXT, data=folder)
    assert [path.stem for path in written] == TEXT
    assert all(save.stale(figures.load()[name], tmp_path / "out", folder) == [] for name in TEXT)


# -- seeds and pilots --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([10, 12], "12 seeds"),
        ([3, 3], "3 seeds (a pilot: directions, no verdicts)"),
        ([10, 3], "10 seeds († pilots of 3: directions, no verdicts)"),
    ],
)
def test_seeds_in_words(counts, words):
    assert text_data.words_for_seeds(pd.Series(counts), "† ") == words


@pytest.mark.parametrize(
    ("decision", "direction", "settled"),
    [
        ("lower", "lower", True),
        ("pilot: higher", "higher", True),
        ("undecided", "", True),
        ("pilot: undecided (not converged)", "", False),
    ],
)
def test_words_of_a_decision(decision, direction, settled):
    assert (text_data.direction(decision), text_data.settled(decision)) == (direction, settled)


def test_every_loss_has_a_family_and_families_stay_together():
    from kdtheory.students.profiles import LOSSES

    families = [text_data.family(loss) for loss in LOSSES]
    runs = [name for name, _ in itertools.groupby(families)]
    assert len(runs) == len(set(runs)) == 5


# -- matrix ------------------------------------------------------------------------------------------------------------
def cells(figure):
    """Text of the matrix by (row, column)."""
    ax = figure.axes[0]
    rows, columns = ([label.get_text() for label in labels] for labels in (ax.get_yticklabels(), ax.get_xticklabels()))
    return {(rows[int(text.get_position()[1])], columns[int(text.get_position()[0])]): text for text in ax.texts}


def test_matrix_shows_percent_of_forward_kl_with_decisions_in_bold(data):
    comparisons = text_data.COMPARISONS.load(data)
    found = cells(text_matrix.students_text_matrix(comparisons))
    rkl, w1 = style.title("rkl"), style.title("w1")
    assert found[rkl, "RKL"].get_text() == "+20.0"
    assert found[w1, "RKL"].get_text() == "−20.0"
    assert found[f"{style.title('sinkd/16')} †", "TV"].get_text() == "+50.0"
    assert found[f"{style.title('sinkd/16')}, against FKL there †", "TV"].get_text() == "+36.4"
    assert found[rkl, "RKL"].get_weight() == "bold"
    comparisons.loc[comparisons["loss"] == "rkl", "decision"] = "undecided (not converged)"
    altered = cells(text_matrix.students_text_matrix(comparisons))
    assert (altered[rkl, "RKL"].get_text(), altered[rkl, "RKL"].get_weight()) == ("+20.0*", "normal")


def test_matrix_is_blue_where_a_loss_is_better(data):
    """More agreement is better, more of anything else is worse."""
    drawn = text_matrix.students_text_matrix(text_data.COMPARISONS.load(data)).axes[0].get_images()[0].get_array()
    rkl, agreement = drawn[0], METRICS.index("agreement")
    assert rkl[agreement] > 0
    assert (np.delete(rkl, agreement) < 0).all()


# -- curves, heads, front ----------------------------------------------------------------------------------------------
def test_curves_are_means_over_seeds_without_pilots(data):
    curves = text_curves.CURVES.load(data)
    last = curves[(curves["loss"] == "rkl") & (curves["step"] == 400)].iloc[0]
    assert (last["fkl"], last["tokens"], last["cpu_seconds"], last["seeds"]) == (1.2 + 4.5, 4000, 4 + 4.5, 10)
    drawn = text_curves.students_curves(curves).axes[0].get_lines()
    assert [line.get_label() for line in drawn] == [style.title(name) for name in TEN]


def test_head_shares_have_the_t_interval(data):
    heads = text_curves.HEADS.load(data)
    assert set(heads["loss"]) == {"fkl", "rkl"}
    shares = 0.5 + 0.01 * np.arange(10)
    low, high = stats.t.interval(0.95, 9, shares.mean(), stats.sem(shares))
    np.testing.assert_allclose(heads[["mean", "low", "high"]], [[shares.mean(), low, high]] * len(heads), rtol=1e-8)


def test_front_is_paired(data):
    """Seeds differ tenfold; as shares of the seed's own level the differences are equal up to the noise of 1e-5."""
    front = text_front.FRONT.load(data)
    share = front["d_cost"] / (1 + front["seed"])
    np.testing.assert_allclose(share, front["loss"].map(LEVELS) - 1, atol=1e-4)  # six times the noise
    assert front.groupby("loss")["seeds"].first().to_dict() == {
        name: len(seeds_of(name)) for name in LEVELS if name != "fkl"
    }


# -- spread ------------------------------------------------------------------------------------------------------------
def test_spread_in_the_title_is_that_of_the_rule():
    grid = pd.DataFrame({"bin": range(10), "tv": np.linspace(0.1, 0.9, 10), "median": 1.0})
    rows = [
        grid.assign(condition=condition, seed=seed, low=1 - width / 2, high=1 + width / 2)
        for condition, width in (("own", 0.4), ("permuted", 0.1))
        for seed in range(3)
    ]
    drawn = text_spread.students_text_spread(pd.concat(rows))
    assert pairs.spread(rows[0]) == pytest.approx(0.4)
    assert [ax.get_title().split(": ")[1] for ax in drawn.axes] == ["spread 0.40, 3 seeds", "spread 0.10, 3 seeds"]


# -- tables ------------------------------------------------------------------------------------------------------------
def test_results_have_the_t_interval(data):
    table = text_tables.students_text_results(text_data.RESULTS.load(data)).set_index("loss")
    values = results_of(["fkl"])["rkl"]
    half = stats.t.ppf(0.975, 9) * stats.sem(values)
    mean, shown = table.loc[style.title("fkl"), "RKL"].split(" ± ")
    assert (float(mean), float(shown)) == pytest.approx((values.mean(), half), abs=1e-4)  # four digits are printed
    assert list(table["seeds"]) == [len(seeds_of(name)) for name in LEVELS]


def test_one_seed_has_no_interval():
    one = results_of(["fkl"]).iloc[:1]
    assert text_tables.students_text_results(one)["FKL"].tolist() == [f"{one['fkl'].iloc[0]:.4f}"]


def test_hard_term_shows_both_sides_and_their_difference(data):
    table = text_tables.students_text_hard_term(text_data.COMPARISONS.load(data))
    assert list(table["loss"]) == [style.title("w1")] * 2
    means = results_of(["fkl", "rkl", "w1", "w1+hard"]).groupby("loss")["cross_entropy"].mean()
    row = table[table["metric"] == style.METRIC_NAMES["cross_entropy"]].iloc[0]
    shown = (float(row["alone"]), float(row["with hard labels"]), float(row["difference"].replace("−", "-")))
    assert shown == pytest.approx((means["w1"], means["w1+hard"], means["w1+hard"] - means["w1"]), abs=1e-4)


# -- generated text ----------------------------------------------------------------------------------------------------
def test_block_of_decisions_names_pilots_and_can_leave_them_out(data):
    everything = generated.student_decisions(data, "")
    assert f"| {style.title('sinkd/16')} | pilot: undecided |" in everything  # three seeds that differ threefold
    short = generated.student_decisions(data, "confirmatory rkl agreement")
    assert short.splitlines()[0] == "| loss | RKL | agreement |"
    assert [line.split(" | ")[0] for line in short.splitlines()[2:5]] == [f"| {style.title(name)}" for name in TEN[1:]]
    assert "pilot" not in short
    assert "10 seeds" in short


def test_an_unknown_metric_of_the_block_is_named(data):
    with pytest.raises(ValueError, match="no metric is called 'wl'; known: fkl, rkl"):
        generated.student_decisions(data, "confirmatory wl")
