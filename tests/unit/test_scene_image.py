"""The embedded renderer's images: right where it says so, wrong where it says so."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import Rendered, Request
from pipeline.generators.scene import lettering, picture
from pipeline.generators.scene.defects import PROFILES, Profile, Rate, kinds_of
from pipeline.generators.scene.layout import Box, Spot, boxes, spots
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.records import Attribute, Checks, ObjectCheck, Prompt, RelationCheck

IMAGE = ("aesthetics", "alignment", "text_rendering", "portrait", "composition")
SIDE = 512

CHECKS = {
    "aesthetics": Checks(objects=(ObjectCheck(name="tent", count=2, colour="red"),)),
    "alignment": Checks(
        objects=(
            ObjectCheck(name="heart", count=3, colour="red"),
            ObjectCheck(name="moon", count=2, colour="blue"),
        ),
        relations=(RelationCheck(subject=0, relation="left of", object=1),),
    ),
    "text_rendering": Checks(
        text="Harbour Cafe",
        attributes=(
            Attribute(name="carrier", value="concert poster"),
            Attribute(name="lettering", value="blue"),
        ),
    ),
    "portrait": Checks(
        attributes=tuple(
            Attribute(name=name, value=value)
            for name, value in (
                ("hair", "black"),
                ("skin", "tan"),
                ("expression", "serious"),
                ("eyewear", "none"),
                ("headwear", "none"),
                ("gender", "man"),
                ("age", "young"),
            )
        )
    ),
    "composition": Checks(
        objects=(ObjectCheck(name="tent", count=1, colour="red"),),
        attributes=(
            Attribute(name="placement", value="left third"),
            Attribute(name="place", value="on an empty beach"),
            Attribute(name="light", value="crisp clear light"),
        ),
    ),
}


def request(category: str, seed: int = 1, checks: Checks | None = None, side: int = SIDE) -> Request:
    prompt = Prompt(
        id="0" * 32,
        root_id="0" * 32,
        category=category,
        bucket=0,
        text="anything",
        subject="thing",
        style="",
        checks=CHECKS[category] if checks is None else checks,
        source="test",
        licence="CC0-1.0",
    )
    return Request(id="", prompt=prompt, seed=seed, size=Size(width=side, height=side))


def only(kind: str, severity: float) -> Profile:
    return Profile(name="only", rates={kind: Rate(probability=1.0, low=severity, high=severity)})


def drawn(category: str, kind: str | None = None, severity: float = 1.0, seed: int = 1) -> Rendered:
    profile = only(kind, severity) if kind else PROFILES["flawless"]
    return picture(request(category, seed), profile)


def pixels(category: str, kind: str | None = None, severity: float = 1.0, seed: int = 1) -> NDArray[np.int16]:
    rendered = drawn(category, kind, severity, seed)
    assert rendered.defects is not None
    assert [defect.kind for defect in rendered.defects] == ([kind] if kind else [])
    return np.asarray(rendered.frames[0], np.int16)


def near(image: NDArray[np.int16], colour: str, within: int = 40) -> NDArray[np.bool_]:
    return np.asarray(np.abs(image - np.array(COLOURS[colour], np.int16)).max(axis=2) < within)


def pieces(mask: NDArray[np.bool_], least: int = 60) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return int((stats[1:, cv2.CC_STAT_AREA] >= least).sum())


def centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.mean()), float(ys.mean())


@pytest.mark.parametrize(("category", "kind"), [(c, k) for c in IMAGE for k in kinds_of(c)])
def test_severity_shows(category: str, kind: str) -> None:
    """A mild defect changes the picture, and a blatant one changes it no less."""
    clean = pixels(category)
    mild, blatant = (np.abs(pixels(category, kind, s) - clean).mean() for s in (0.25, 1.0))
    assert mild > 0.02
    assert blatant >= mild * 0.6


@pytest.mark.parametrize("seed", range(6))
def test_counted_groups_are_exact(seed: int) -> None:
    image = pixels("alignment", seed=seed)
    assert pieces(near(image, "red")) == 3
    assert pieces(near(image, "blue")) == 2
    assert centre(near(image, "red"))[0] < centre(near(image, "blue"))[0]


@pytest.mark.parametrize(("severity", "off"), [(0.3, 1), (0.6, 2), (1.0, 3)])
def test_wrong_count_changes_the_number_of_pieces(severity: float, off: int) -> None:
    image = pixels("alignment", "wrong_count", severity)
    red, blue = pieces(near(image, "red")), pieces(near(image, "blue"))
    assert abs(red - 3) + abs(blue - 2) == off


def test_wrong_colour_repaints_a_whole_group_at_worst() -> None:
    image = pixels("alignment", "wrong_colour")
    left = {colour for colour in ("red", "blue") if near(image, colour).sum() > 200}
    assert len(left) == 1
    others = [c for c in COLOURS if c not in ("red", "blue", "black") and pieces(near(image, c, 25), 200)]
    assert len(others) == 1


def test_swapped_relation_turns_the_groups_round() -> None:
    image = pixels("alignment", "swapped_relation")
    assert centre(near(image, "red"))[0] > centre(near(image, "blue"))[0]


def test_wrong_object_keeps_count_and_colour() -> None:
    clean, image = pixels("alignment"), pixels("alignment", "wrong_object")
    assert near(image, "red").sum() > 200
    assert near(image, "blue").sum() > 200
    assert (near(clean, "red") ^ near(image, "red")).sum() + (near(clean, "blue") ^ near(image, "blue")).sum()


RELATIONS = st.sampled_from(("left of", "right of", "above", "below"))


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    names=st.permutations(sorted(OBJECTS)),
    chain=st.lists(RELATIONS, min_size=2, max_size=2),
    seed=st.integers(0, 2**62),
)
def test_layouts_hold_relations_without_overlap(
    counts: list[int], names: list[str], chain: list[str], seed: int
) -> None:
    del names
    relations = [
        RelationCheck(subject=i, relation=relation, object=i + 1)  # type: ignore[arg-type]
        for i, relation in enumerate(chain[: len(counts) - 1])
    ]
    rng = np.random.Generator(np.random.PCG64(seed))
    placed: list[tuple[Spot, float]] = []
    for count, box in zip(counts, boxes(rng, len(counts), relations, Box(0, 0, 1024, 1024)), strict=True):
        height, found = spots(rng, count, 1.0, box, 240)
        assert all(box.x0 <= s.x - height / 2 and s.x + height / 2 <= box.x1 for s in found)
        assert all(box.y0 <= s.y - height / 2 and s.y + height / 2 <= box.y1 for s in found)
        placed += [(spot, height) for spot in found]
    for i, (a, first) in enumerate(placed):
        for b, second in placed[:i]:
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (first + second) / 2


def ink(kind: str | None, severity: float = 1.0) -> NDArray[np.bool_]:
    return near(pixels("text_rendering", kind, severity), "blue", 60)


def test_missing_letters_and_cropping_take_ink_away() -> None:
    full = ink(None).sum()
    assert ink("missing_letters", 0.8).sum() < 0.9 * full
    assert ink("cropped_text").sum() < 0.8 * full
    assert ink("cropped_text", 0.25).sum() < full


def test_faint_text_fades_with_severity() -> None:
    assert ink(None).sum() > 1000
    assert ink("faint_text", 0.25).sum() < 0.1 * ink(None).sum()
    clean = pixels("text_rendering")
    contrast = [np.abs(pixels("text_rendering", "faint_text", s) - clean).max() for s in (0.25, 0.6, 1.0)]
    assert contrast == sorted(contrast)


def test_stray_text_stands_outside_the_carrier() -> None:
    changed = np.abs(pixels("text_rendering", "stray_text") - pixels("text_rendering")).max(axis=2) > 60
    rows = np.nonzero(changed.any(axis=1))[0]
    assert changed.sum() > 500
    assert all(row < 0.22 * SIDE or row > 0.78 * SIDE for row in rows)


@settings(deadline=None, max_examples=30)
@given(
    font=st.sampled_from(lettering.FONTS),
    text=st.text("ABgjpqyQW%&'!? 0158", min_size=1, max_size=30).filter(str.strip),
)
def test_set_text_fits_its_box_with_all_its_ink(font: str, text: str) -> None:
    block = lettering.fit(text, font, 300, 120, 80)
    assert block.width <= 312
    assert block.height <= 126
    mask = lettering.mask(block)
    assert mask.any()
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() < 40


def eyes(image: NDArray[np.int16]) -> tuple[int, int]:
    """Near-white pixels left and right of the middle of the face, between brows and nose."""
    band = image[int(0.34 * SIDE) : int(0.56 * SIDE)]
    white = (band.min(axis=2) > 240) & (np.ptp(band, axis=2) < 10)
    xs = np.nonzero(white)[1]
    dark = near(image, "black", 16)[int(0.1 * SIDE) : int(0.3 * SIDE)]
    middle = float(np.nonzero(dark)[1].mean())
    return int((xs < middle).sum()), int((xs >= middle).sum())


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_face_is_even(seed: int) -> None:
    left, right = eyes(pixels("portrait", seed=seed))
    assert min(left, right) > 100
    assert min(left, right) > 0.9 * max(left, right)


def test_eyes_go_uneven_and_missing() -> None:
    left, right = eyes(pixels("portrait", "asymmetric_eyes"))
    assert min(left, right) < 0.75 * max(left, right)
    left, right = eyes(pixels("portrait", "missing_feature"))
    assert min(left, right) < 0.1 * max(left, right)


@pytest.mark.parametrize("kind", kinds_of("portrait"))
def test_face_defects_stay_in_the_face(kind: str) -> None:
    changed = np.abs(pixels("portrait", kind) - pixels("portrait")).max(axis=2) > 12
    ys, xs = np.nonzero(changed)
    assert len(xs) > 100
    assert xs.min() > 0.1 * SIDE
    assert xs.max() < 0.9 * SIDE
    assert ys.max() < 0.95 * SIDE


def test_portrait_attributes_show() -> None:
    def face(**changes: str) -> NDArray[np.int16]:
        asked = {a.name: a.value for a in CHECKS["portrait"].attributes} | changes
        checks = Checks(attributes=tuple(Attribute(name=n, value=v) for n, v in asked.items()))
        clean = picture(request("portrait", checks=checks), PROFILES["flawless"])
        return np.asarray(clean.frames[0], np.int16)

    plain = face()
    for change in ({"hair": "white"}, {"skin": "dark"}, {"expression": "smiling"}, {"eyewear": "glasses"}):
        assert (np.abs(face(**change) - plain).max(axis=2) > 30).sum() > 300
    assert np.abs(face(headwear="hat") - plain)[: SIDE // 4].mean() > 5


@pytest.mark.parametrize("seed", range(4))
def test_the_subject_stands_whole_where_it_was_asked(seed: int) -> None:
    mask = near(pixels("composition", seed=seed), "red", 60)
    assert abs(centre(mask)[0] / SIDE - 1 / 3) < 0.06
    assert not any(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def test_composition_defects_show() -> None:
    clean = near(pixels("composition"), "red", 60)
    cut = near(pixels("composition", "cropped_subject"), "red", 60)
    assert cut[:, 0].any()
    assert cut.sum() < 0.75 * clean.sum()
    assert centre(near(pixels("composition", "off_balance"), "red", 60))[0] > 0.6 * SIDE
    busy = pixels("composition", "clutter")
    assert sum(pieces(near(busy, colour, 25), 40) for colour in COLOURS) >= 8


def test_a_tilted_horizon_slopes() -> None:
    def edge(image: NDArray[np.int16], x: int) -> int:
        return int(np.abs(np.diff(image[:, x].mean(axis=1))).argmax())

    level, tilted = pixels("composition"), pixels("composition", "tilted_horizon")
    assert abs(edge(level, SIDE - 9) - edge(level, SIDE // 2 + 60)) <= 2
    assert abs(edge(tilted, SIDE - 9) - edge(tilted, SIDE // 2 + 60)) > 20


def test_noise_survives_blur_because_a_sensor_comes_after_its_lens() -> None:
    both = Profile(
        name="both", rates={kind: Rate(probability=1, low=0.8, high=0.8) for kind in ("noise", "blur")}
    )
    blurred = pixels("aesthetics", "blur", 0.8)
    noisy = picture(request("aesthetics"), both).frames[0].astype(np.int16)
    assert np.abs(np.diff(noisy, axis=1)).mean() > 3 * np.abs(np.diff(blurred, axis=1)).mean()


def test_damage_to_pixels_is_what_it_is_called() -> None:
    def sharp(image: NDArray[np.int16]) -> float:
        return float(cv2.Laplacian(image.astype(np.uint8), cv2.CV_64F).var())

    def colourful(image: NDArray[np.int16]) -> float:
        return float(np.ptp(image, axis=2).mean())

    clean = pixels("aesthetics")
    assert sharp(pixels("aesthetics", "noise", 0.25)) > 2 * sharp(clean)
    assert sharp(pixels("aesthetics", "blur", 0.25)) < 0.5 * sharp(clean)
    assert abs(pixels("aesthetics", "bad_exposure", 0.25).mean() - clean.mean()) > 8
    assert len(np.unique(pixels("aesthetics", "banding"))) <= 4
    assert near(pixels("aesthetics", "muddy_colours"), "red").sum() < 0.1 * near(clean, "red").sum()
    assert colourful(pixels("aesthetics", "muddy_colours")) != colourful(clean)


@pytest.mark.parametrize(
    ("category", "checks"),
    [
        ("text_rendering", Checks()),
        ("text_rendering", Checks(text="  ")),
        ("text_rendering", Checks(text="日本語")),
        ("text_rendering", Checks(text="word " * 60)),
        ("alignment", Checks(objects=(ObjectCheck(name="moon", count=-1, colour=None),))),
        ("alignment", Checks(objects=(ObjectCheck(name="moon", count=900, colour=None),))),
        (
            "alignment",
            Checks(
                objects=CHECKS["alignment"].objects,
                relations=(
                    RelationCheck(subject=0, relation="above", object=1),
                    RelationCheck(subject=0, relation="below", object=1),
                ),
            ),
        ),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(category: str, checks: Checks) -> None:
    with pytest.raises(ItemError) as error:
        picture(request(category, checks=checks), PROFILES["steady"])
    assert "\n" not in str(error.value)


def test_what_a_prompt_wants_none_of_is_not_drawn() -> None:
    hearts, moons = CHECKS["alignment"].objects
    relation = RelationCheck(subject=1, relation="above", object=0)
    none = Checks(objects=(hearts, replace(moons, count=0)), relations=(relation,))
    shown = np.asarray(picture(request("alignment", checks=none), PROFILES["flawless"]).frames[0], np.int16)
    assert pieces(near(shown, "red")) == hearts.count
    assert not near(shown, "blue").any()


@pytest.mark.parametrize("category", [c for c in IMAGE if c != "text_rendering"])
def test_prompts_of_unknown_content_are_still_drawn(category: str) -> None:
    unknown = Checks(
        objects=(ObjectCheck(name="zeppelin", count=1, colour="mauve"),),
        relations=(RelationCheck(subject=0, relation="above", object=0),),
        attributes=(Attribute(name="placement", value="nowhere"), Attribute(name="hair", value="plaid")),
    )
    for checks in (Checks(), unknown):
        rendered = picture(request(category, checks=checks, side=128), PROFILES["flawed"])
        assert rendered.frames.std() > 3


def test_a_category_of_ones_own_is_drawn_by_its_checks() -> None:
    lettered = Checks(text="Open")
    own = request("alignment", checks=lettered).prompt
    for checks in (lettered, CHECKS["alignment"], Checks()):
        mine = Prompt(
            **{f: getattr(own, f) for f in Prompt.__dataclass_fields__}
            | {"category": "logos", "checks": checks}
        )
        size = Size(width=128, height=96)
        rendered = picture(Request(id="", prompt=mine, seed=1, size=size), PROFILES["steady"])
        assert rendered.frames.shape == (1, 96, 128, 3)
        assert rendered.defects == ()


@pytest.mark.parametrize("side", [64, 256, 1536])
def test_any_size_is_drawn(side: int) -> None:
    for category in IMAGE:
        assert picture(request(category, side=side), PROFILES["steady"]).frames.shape == (1, side, side, 3)
