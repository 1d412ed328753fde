from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline import media
from pipeline.errors import CorruptError, StorageError
from pipeline.ids import content_id
from pipeline.media.frames import Frames
from pipeline.records import (
    ORDERS,
    Agreement,
    Calibration,
    Checks,
    Choice,
    Defect,
    Generation,
    Pair,
    Prompt,
    Reason,
    Verdict,
    Vote,
)
from pipeline.report.cards import REASONS
from pipeline.report.data import ReportInput, ShardRow
from pipeline.report.page import render

ATTACK = '</p><script>alert("x")</script><img src=x onerror=alert(1)> & "quotes"'
OUTCOMES: list[Reason | None] = [None, None, None, *Reason]


def noise(seed: int, frames: int = 1, height: int = 64, width: int = 64) -> Frames:
    drawn = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3))
    return drawn.astype(np.uint8)


@dataclass
class Build:
    """A build of two categories whose every pair shares one picture a category and side."""

    pairs_each: int = 24
    prompts: list[Prompt] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        still = [media.encode(noise(side), 0) for side in (1, 2)]
        clip = [media.encode(noise(side, 12, 36, 64), 8) for side in (3, 4)]
        self.blobs = {made.sha256: made.data for made in (*still, *clip)}
        for category, encoded in (("text_rendering", still), ("motion_quality", clip)):
            for number in range(self.pairs_each):
                self._add(category, number, encoded)

    def _add(self, category: str, number: int, encoded: list[media.Encoded]) -> None:
        root = content_id("prompt", category=category, number=number)
        text = f"{ATTACK} {category} {number}"
        self.prompts.append(prompt(root, category, text))
        made = [
            generation(root, category, f"scene/{side}", encoded[side], number == 5 and side == 1)
            for side in (0, 1)
        ]
        reason = OUTCOMES[number % len(OUTCOMES)]
        pair = Pair(
            id=content_id("pair", root=root),
            root_id=root,
            category=category,
            recipe="two generators",
            first_id=made[0].id,
            second_id=made[1].id,
            first_sha256=made[0].media_sha256,
            second_sha256=made[1].media_sha256,
            expected="first" if reason is Reason.GOLD else None,
            gold=reason is Reason.GOLD,
        )
        self.generations += made
        self.pairs.append(pair)
        self._judge(pair, reason)

    def _judge(self, pair: Pair, reason: Reason | None) -> None:
        choice: Choice = "tie" if reason is Reason.TOO_FEW_VOTES else "first"
        judges = ("ocr", "sharp<ness>", "layout")
        self.verdicts += [verdict(pair, judge, choice) for judge in judges]
        self.verdicts += [
            replace(v, order="swapped", id=v.id + "s") for v in self.verdicts[-3:] if v.pair_id == pair.id
        ]
        kept = reason is None
        self.agreements.append(
            Agreement(
                id=content_id("agreement", pair=pair.id),
                pair_id=pair.id,
                root_id=pair.root_id,
                category=pair.category,
                policy="unanimous",
                kept=kept,
                winner_id=pair.first_id if kept else None,
                loser_id=pair.second_id if kept else None,
                confidence=0.9 if kept else None,
                reason=reason,
                votes=tuple(Vote(judge=judge, choice=choice, consistent=True) for judge in judges),
                bytes=1,
                licence_profile="permissive",
            )
        )

    def fetch(self, sha256: str, mime: str) -> bytes:
        assert mime in media.SUFFIX
        return self.blobs[sha256]

    def source(self) -> ReportInput:
        kept = sum(agreement.kept for agreement in self.agreements)
        return ReportInput(
            title="demo",
            created="2026-11-18T09:30:00Z",
            settings={"run": "memory://demo", "profile": "laptop"},
            prompts=lambda: iter(self.prompts),
            generations=lambda: iter(self.generations),
            pairs=lambda: iter(self.pairs),
            agreements=lambda: iter(self.agreements),
            verdicts=lambda: iter(self.verdicts),
            calibrations=lambda: iter(self.calibrations),
            quotas={"text_rendering": 5, "motion_quality": 9},
            shards=(
                ShardRow(
                    name="x-000000.tar",
                    category="text_rendering",
                    licence_profile="permissive",
                    pairs=kept,
                    bytes=1_500_000,
                    sha256="ab" * 32,
                ),
            ),
            fetch=self.fetch,
        )


def prompt(name: str, category: str, text: str, reason: str | None = None) -> Prompt:
    return Prompt(
        id=name,
        root_id=name,
        category=category,
        bucket=0,
        text=text,
        subject="s",
        style="s",
        checks=Checks(),
        source="s",
        licence="CC0-1.0",
        status="failed" if reason else "ok",
        reason=reason,
    )


def generation(root: str, category: str, generator: str, made: media.Encoded, failed: bool) -> Generation:
    return Generation(
        id=content_id("generation", root=root, generator=generator),
        prompt_id=root,
        root_id=root,
        category=category,
        generator=generator,
        generator_id=generator,
        seed=1,
        width=made.probe.width,
        height=made.probe.height,
        frames=made.probe.frames,
        fps=made.probe.fps,
        mime=made.mime,
        media_sha256=None if failed else made.sha256,
        bytes=len(made.data),
        licence="Apache-2.0",
        licence_profile="permissive",
        defects=(Defect(kind="faint_text", severity=0.4),),
        status="failed" if failed else "ok",
        reason="out of memory: lower the batch" if failed else None,
    )


def verdict(pair: Pair, judge: str, choice: Choice) -> Verdict:
    return Verdict(
        id=content_id("verdict", pair=pair.id, judge=judge),
        pair_id=pair.id,
        category=pair.category,
        judge=judge,
        judge_id=judge,
        rubric_id="r",
        order=ORDERS[0],
        choice=choice,
        p_first=0.8,
        raw=f"<i>{judge}</i> says {choice}",
    )


class Page(HTMLParser):
    """Reads back what a person sees: numbers by name, tags, text, attributes that could reach out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}
        self.shown: dict[str, str] = {}
        self.tags: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self._name = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        assert not [name for name in known if name.startswith("on")]
        self.tags[tag] += 1
        self.classes.update(known.get("class", "").split())
        self.links += [known[name] for name in ("href", "src", "srcset", "action") if name in known]
        self.ids += [known["id"]] if "id" in known else []
        self.alts += [known["alt"]] if tag == "img" else []
        if tag == "data":
            self._name = known["data-name"]
            self.numbers[self._name] = int(known["value"])

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._name:
            self.shown[self._name] = data
            self._name = ""


@pytest.fixture(scope="module")
def build() -> Build:
    return Build()


@pytest.fixture(scope="module")
def html(build: Build) -> str:
    return render(build.source(), sheet=4)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_counts_on_the_page_are_those_of_the_input(build: Build, page: Page) -> None:
    outcomes = Counter((a.category, a.reason) for a in build.agreements)
    for category in ("text_rendering", "motion_quality"):
        assert page.numbers[f"{category}/kept"] == outcomes[category, None]
        assert page.numbers[f"{category}/pairs"] == build.pairs_each
        for reason in Reason:
            assert page.numbers[f"{category}/{reason}"] == outcomes[category, reason]
        assert page.numbers[f"{category}/ocr/answers"] == 2 * build.pairs_each
        assert page.numbers[f"{category}/failed generations"] == 1
    assert page.numbers["kept"] == sum(a.kept for a in build.agreements)
    assert page.numbers["pairs"] == len(build.pairs)
    assert page.numbers["prompts"] == len(build.prompts)
    assert page.numbers["generations"] == len(build.generations)
    assert page.numbers["verdicts"] == len(build.verdicts)
    assert page.numbers["failures"] == 2
    assert page.numbers["at_quota"] == 1
    assert page.numbers["sharded"] == page.numbers["kept"]


def test_every_number_is_printed_as_it_is_stored(page: Page) -> None:
    assert {name: int(text.replace(",", "")) for name, text in page.shown.items()} == page.numbers


def test_the_page_needs_nothing_else(html: str, page: Page) -> None:
    inner = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in inner} <= set(page.ids)
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?://", html)


def test_text_from_prompts_and_judges_is_escaped(html: str, page: Page) -> None:
    assert "<script" not in html
    assert "onerror=alert(1)>" not in html
    assert "<i>ocr" not in html
    assert ATTACK in page.text
    assert any(ATTACK[:40] in alt for alt in page.alts)
    assert "sharp<ness>" in page.text


def test_cards_show_sides_winner_votes_defects_and_answers(build: Build, page: Page) -> None:
    assert page.classes["card"] == 2 * (4 + 4)
    assert page.classes["won"] == 2 * 4
    assert page.classes["film"] > 0
    assert "faint text 0.40" in page.text
    assert "<i>ocr</i> says first" in page.text
    shown = [agreement for agreement in build.agreements if agreement.pair_id in page.text]
    assert len(shown) == 16
    assert {a.reason for a in shown} >= set(list(Reason)[:4])


def test_the_same_build_gives_the_same_bytes_in_any_order_of_its_streams(build: Build, html: str) -> None:
    assert render(build.source(), sheet=4) == html
    backwards = Build()
    for rows in (backwards.prompts, backwards.generations, backwards.pairs, backwards.agreements):
        rows.reverse()
    backwards.verdicts.reverse()
    assert render(backwards.source(), sheet=4) == html


@pytest.mark.parametrize("error", [StorageError, CorruptError])
def test_media_that_cannot_be_had_leave_the_reason(build: Build, error: type[Exception]) -> None:
    def fetch(sha256: str, mime: str) -> bytes:
        raise error(f"{sha256[:4]} of {mime} is gone: restore <it>")

    page = Page(render(replace(build.source(), fetch=fetch), sheet=2))
    assert page.tags["img"] == 0
    assert page.classes["missing"] == 2 * 2 * (2 + 2)
    assert "is gone: restore <it>" in page.text


def test_media_that_do_not_decode_leave_the_reason(build: Build) -> None:
    page = Page(render(replace(build.source(), fetch=lambda *_: b"not media"), sheet=2))
    assert page.tags["img"] == 0
    assert "9 bytes are not a JPEG" in page.text


def test_a_side_that_was_never_generated_says_why(build: Build) -> None:
    page = Page(render(build.source(), sheet=build.pairs_each))
    assert "out of memory: lower the batch" in page.text
    assert page.classes["missing"] == 2


def test_rows_that_are_gone_do_not_stop_the_page(build: Build) -> None:
    source = replace(build.source(), prompts=lambda: iter(()), generations=lambda: iter(()))
    page = Page(render(source, sheet=1))
    assert "This prompt is not in the build." in page.text
    assert "This generation is not in the build." in page.text
    assert (
        page.classes["card"] == Page(render(replace(source, pairs=lambda: iter(())), sheet=1)).classes["card"]
    )


def test_a_perturbed_side_shows_its_own_prompt(build: Build) -> None:
    changed = replace(build.prompts[0], id="0" * 32, text="two cats", perturbation="wrong_count")
    sides = [replace(g, prompt_id=changed.id) if g.generator == "scene/1" else g for g in build.generations]
    source = replace(
        build.source(), prompts=lambda: iter([*build.prompts, changed]), generations=lambda: iter(sides)
    )
    text = Page(render(source, sheet=1)).text
    assert "a perturbed prompt (wrong count)" in text
    assert "two cats" in text


def empty(quotas: Mapping[str, int]) -> ReportInput:
    def nothing() -> Iterator[object]:
        return iter(())

    return ReportInput(
        title="new",
        created=None,
        settings={},
        prompts=nothing,  # type: ignore[arg-type]
        generations=nothing,  # type: ignore[arg-type]
        pairs=nothing,  # type: ignore[arg-type]
        agreements=nothing,  # type: ignore[arg-type]
        verdicts=nothing,  # type: ignore[arg-type]
        calibrations=nothing,  # type: ignore[arg-type]
        quotas=quotas,
        shards=(),
        fetch=lambda *_: b"",
    )


@pytest.mark.parametrize("quotas", [{}, {"portrait": 200_000}, {"portrait": 0}])
def test_an_empty_build_has_a_page(quotas: dict[str, int]) -> None:
    page = Page(render(empty(quotas)))
    assert page.numbers["kept"] == page.numbers["generations"] == page.numbers["failures"] == 0
    assert "No pairs yet" in page.text
    assert set(quotas) <= set(page.ids)


def test_failed_prompts_are_counted_by_reason() -> None:
    rows = [prompt(str(n), "portrait", "x", "prompt is empty" if n < 3 else None) for n in range(5)]
    page = Page(render(replace(empty({"portrait": 5}), prompts=lambda: iter(rows))))
    assert page.numbers["prompts"] == 5
    assert page.numbers["failures"] == page.numbers["portrait/failed prompts"] == 3
    assert "prompt is empty" in page.text


def test_shards_that_lack_kept_pairs_are_called_out(build: Build) -> None:
    page = Page(render(replace(build.source(), shards=()), sheet=1))
    assert "The shards hold 0 pairs" in page.text


def test_every_reason_has_a_name_in_the_closed_order() -> None:
    assert list(REASONS) == list(Reason)
