"""Figures stand on their data; generated text says what the stored evidence says."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from kdtheory import claims, figures
from kdtheory.figures import datasets, gradients, parallel_lines, save, style, tables
from kdtheory.ledger import Claim
from kdtheory.publish import generated

PLOTS = figures.load()
COMPUTED = sorted({plot.data.place for plot in PLOTS.values() if plot.data.compute})
DATASETS = {plot.data.place: plot.data for plot in PLOTS.values()}


# -- published figures ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(PLOTS))
def test_published_figure_stands_on_todays_data_and_code(name, root):
    assert save.stale(PLOTS[name], root / "figures") == [], "run `make figures`"


@pytest.mark.parametrize("place", COMPUTED)
def test_stored_data_are_what_the_library_computes(place, root):
    """The numbers behind a figure, computed again: a changed formula shows here."""
    assert datasets.close(DATASETS[place].load(root / "figures" / "data"), DATASETS[place].compute())


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_claims_of_a_figure_exist(name):
    registry = claims.load()
    assert [id for id in PLOTS[name].claims if id not in registry] == []


def test_stored_verdicts_are_those_of_todays_claims(root):
    """Recomputing them is the ledger's job; here: none is missing, left over, failed, or of another statement."""
    stored = figures.load_data("verdicts", root / "figures" / "data")
    today = {item.id: (item.statement, item.expected.value) for item in claims.load() if isinstance(item, Claim)}
    found = stored.set_index("id")[["statement", "verdict"]]
    assert dict(zip(found.index, found.itertuples(index=False, name=None), strict=True)) == today
    assert (stored["failures"] == 0).all()


def test_every_published_file_belongs_to_a_registered_figure(root):
    published = {path.stem for path in (root / "figures").iterdir() if path.is_file()}
    assert published == set(PLOTS)


# -- the guard bites --------------------------------------------------------------------------------------------------
@pytest.fixture
def drawn(tmp_path):
    """Figure "gradients_against_gap", drawn from its own data in a folder that a test may damage."""
    data = tmp_path / "data"
    figures.build(tmp_path / "out", only=["gradients_against_gap"], data=data)
    return PLOTS["gradients_against_gap"], tmp_path / "out", data


def test_a_fresh_figure_is_not_stale(drawn):
    assert save.stale(*drawn) == []


def test_changed_data_make_it_stale(drawn):
    plot, out, data = drawn
    table = plot.data.load(data)
    table.loc[0, "size"] *= 1.001
    (data / plot.data.place).write_text(datasets.to_csv(table))
    assert save.stale(plot, out, data) == [f"its data ({plot.data.place}) changed since it was drawn"]


@pytest.mark.parametrize("file", ["gradients.py", "style.py", "kdtheory.mplstyle"])
def test_changed_code_makes_it_stale(drawn, file):
    plot, out, data = drawn
    path = out / f"{plot.name}.json"
    record = json.loads(path.read_text())
    record["code_sha256"][file] = "0" * 64
    path.write_text(json.dumps(record))
    assert save.stale(plot, out, data) == [f"{file} changed since it was drawn"]


def test_another_picture_makes_it_stale(drawn):
    plot, out, data = drawn
    (out / f"{plot.name}.pdf").write_bytes((out / f"{plot.name}.pdf").read_bytes() + b"%")
    assert save.stale(plot, out, data) == [f"{plot.name}.pdf is missing or not the file that was drawn"]


def test_a_missing_provenance_makes_it_stale(drawn):
    plot, out, data = drawn
    (out / f"{plot.name}.json").unlink()
    assert save.stale(plot, out, data) == [f"{plot.name}.json is missing"]


# -- reproducible bytes ------------------------------------------------------------------------------------------------
def test_drawing_twice_gives_the_same_bytes(drawn, tmp_path):
    plot, out, data = drawn
    figures.build(tmp_path / "again", only=[plot.name], data=data)
    for file in sorted(out.iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_pdf_holds_no_date(drawn):
    plot, out, _ = drawn
    content = (out / f"{plot.name}.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"CreationDate" not in content


def test_unknown_figure_is_named_with_a_hint(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'gradients_against_gap'"):
        figures.build(tmp_path, only=["gradient_against_gap"])


def test_missing_evidence_is_said(tmp_path):
    with pytest.raises(figures.EvidenceNotInstalledError, match="evidence not installed"):
        figures.build(tmp_path, only=["students_curves"], data=tmp_path)


def test_a_figure_name_is_taken_once():
    with pytest.raises(ValueError, match="drawn twice"):
        figures.registry.figure(gradients.GAP_SIZES)(gradients.gradients_against_gap)


# -- data --------------------------------------------------------------------------------------------------------------
TABLE = pd.DataFrame({"name": ["a", "none"], "value": [1.0, np.inf]})


def test_tables_survive_storage(tmp_path):
    (tmp_path / "t.csv").write_text(datasets.to_csv(TABLE))
    pd.testing.assert_frame_equal(datasets.read_csv(tmp_path / "t.csv"), TABLE)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(value=[1.0 + 1e-6, np.inf]),
        lambda t: t.assign(value=[1.0, 2.0]),
        lambda t: t.assign(value=[1.0, -np.inf]),
        lambda t: t.assign(name=["a", "b"]),
        lambda t: t.rename(columns={"value": "size"}),
        lambda t: t.iloc[:1],
    ],
)
def test_changed_tables_are_not_close(change):
    assert datasets.close(TABLE, TABLE.copy())
    assert not datasets.close(TABLE, change(TABLE.copy()))


def test_refresh_keeps_a_file_whose_last_digits_differ(tmp_path):
    """Another processor's logarithm is no news: the stored file stays, byte for byte."""
    dataset = datasets.Dataset("t.csv", datasets.read_csv, lambda: TABLE.assign(value=[1.0 + 1e-9, np.inf]))
    (tmp_path / "t.csv").write_text(datasets.to_csv(TABLE))
    assert not dataset.refresh(tmp_path)
    (tmp_path / "t.csv").write_text(datasets.to_csv(TABLE.assign(value=[1.1, np.inf])))
    assert dataset.refresh(tmp_path)


def test_parallel_lines_computed_on_a_grid_equal_the_closed_forms():
    table = parallel_lines.DISTANCES.compute()
    finite = np.isfinite(table["closed_form"])
    assert set(table["distance"]) == {"em", "js", "kl", "tv"}
    assert (table["computed"][~finite] == np.inf).all()
    np.testing.assert_allclose(
        table["computed"][finite], table["closed_form"][finite], atol=1e-12
    )  # a few float64 sums


def test_growth_names_what_vanishes_and_what_explodes():
    gaps = np.arange(31)
    made = {"flat": np.ones(31), "down": np.exp(-gaps), "up": np.exp(gaps / 2)}
    sizes = pd.concat(pd.DataFrame({"loss": name, "gap": gaps, "size": size}) for name, size in made.items())
    words = gradients.growth(sizes).set_index("loss")
    assert words["word"].to_dict() == {"flat": "constant", "down": "vanishes", "up": "explodes"}
    assert words["rate"].to_dict() == {"flat": 0.0, "down": -1.0, "up": 0.5}


# -- tables and labels -------------------------------------------------------------------------------------------------
def test_latex_escapes_text_and_leaves_mathematics():
    table = pd.DataFrame({"claim": ["$a_1 & b$", "50 % of λ_x"], "n": [1, 2]})
    lines = tables.to_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[4:6] == [r"$a_1 & b$ & 1 \\", r"50 \% of $\lambda$\_x & 2 \\"]


def test_markdown_escapes_bars_and_aligns_numbers():
    assert tables.to_markdown(pd.DataFrame({"a|b": ["x"], "n": [1]})) == "| a\\|b | n |\n| --- | ---: |\n| x | 1 |"


def test_labels_are_pushed_apart_and_keep_their_order():
    placed = style.spread([0.5, 0.5, 0.1, 0.98, 0.99], 0.1)
    order = np.argsort([0.5, 0.5, 0.1, 0.98, 0.99], kind="stable")
    assert (np.diff(np.array(placed)[order]) >= 0.1 - 1e-12).all()
    assert max(placed) <= 1.0


# -- generated text ----------------------------------------------------------------------------------------------------
def test_generated_blocks_are_current(root):
    assert list(generated.outdated(root)) == [], "run `make figures`"


def test_no_result_is_typed_into_a_table(root):
    for page in generated.pages(root):
        assert generated.typed_by_hand(page.read_text(encoding="utf-8")) == [], page.name


def test_readme_holds_a_generated_verdict_table(root):
    assert "<!-- generated:verdict" in (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def pages(tmp_path, root):
    """A repository of one page and of today's verdicts."""
    (tmp_path / "figures" / "data").mkdir(parents=True)
    shutil.copy(root / "figures" / "data" / "verdicts.json", tmp_path / "figures" / "data")
    (tmp_path / "README.md").write_text("# x\n<!-- generated:verdicts:gradients -->\n<!-- /generated -->\nend\n")
    return tmp_path


def test_a_changed_verdict_makes_a_page_outdated(pages):
    assert list(generated.outdated(pages)) == ["README.md"]
    generated.update(pages)
    text = (pages / "README.md").read_text()
    assert generated.outdated(pages) == {}
    assert "`gradients.rkl-slope`" in text
    assert text.endswith("<!-- /generated -->\nend\n")
    (pages / "README.md").write_text(text.replace("CORRECTED", "PROVED", 1))
    assert list(generated.outdated(pages)) == ["README.md"]


def test_a_typed_table_is_found():
    typed = "| loss | FKL |\n| --- | --- |\n| rkl | 0.123 |\n| tvd | PROVED |\n| w1 | high |\n"
    assert generated.typed_by_hand(typed) == ["| rkl | 0.123 |", "| tvd | PROVED |"]
    assert generated.typed_by_hand(f"<!-- generated:verdicts -->\n{typed}<!-- /generated -->\n") == []


@pytest.mark.parametrize("text", ["<!-- generated:verdicts -->\n", "<!-- generated:nothing -->\n<!-- /generated -->\n"])
def test_a_broken_block_is_an_error(text, tmp_path):
    with pytest.raises(ValueError, match=r"not closed|no generated block"):
        generated.render(text, tmp_path)
