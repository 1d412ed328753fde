"""Every embedded generator keeps the promises of ``generators/base.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import Generator, GeneratorSpec, Rendered, Request
from pipeline.generators.scene.defects import KINDS
from pipeline.generators.table import GENERATORS, make_generator
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt
from pipeline.storage import open_store

EMBEDDED = [spec for spec in GENERATORS.values() if spec.family == "scene"]
OF_MODALITY = {
    "image": ("aesthetics", "alignment", "text_rendering", "portrait", "composition"),
    "video": ("motion_quality", "video_alignment", "visual_quality"),
}
SIZES = {"image": Size(width=160, height=160), "video": Size(width=192, height=108, frames=9, fps=8)}
CHECKS = Checks(
    objects=(ObjectCheck(name="fish", count=1, colour="orange"),),
    motions=(MotionCheck(object=0, direction="left", camera="static"),),
    attributes=(Attribute(name="hair", value="red"), Attribute(name="placement", value="centre")),
    text="Open late",
)
EVERY = [(spec, category) for spec in EMBEDDED for category in OF_MODALITY[spec.modality]]
NAMES = [f"{spec.name}-{category}" for spec, category in EVERY]


def request(spec: GeneratorSpec, category: str, seed: int, checks: Checks = CHECKS) -> Request:
    prompt = Prompt(
        id=f"{seed:032x}",
        root_id=f"{seed:032x}",
        category=category,
        bucket=0,
        text="an orange fish",
        subject="fish",
        style="watercolour",
        checks=checks,
        source="test",
        licence="CC0-1.0",
    )
    return Request(id=prompt.id, prompt=prompt, seed=seed, size=SIZES[spec.modality])


def opened(spec: GeneratorSpec, folder: Path) -> Generator:
    generator = make_generator(spec)
    generator.open(open_store(str(folder)))
    return generator


def rendered(result: Rendered | ItemError) -> Rendered:
    assert isinstance(result, Rendered), result
    return result


def test_there_are_five_variants_and_two_gold_profiles_for_each_modality() -> None:
    for modality in ("image", "video"):
        names = {spec.name for spec in EMBEDDED if spec.modality == modality}
        suffix = "-video" if modality == "video" else ""
        assert {f"scene/flawless{suffix}", f"scene/flawed{suffix}"} < names
        assert len(names) >= 7
    assert [name for name, spec in GENERATORS.items() if name != spec.name] == []


@pytest.mark.parametrize(("spec", "category"), EVERY, ids=NAMES)
def test_frames_have_the_size_asked_for_and_defects_are_known(
    spec: GeneratorSpec, category: str, tmp_path: Path
) -> None:
    wanted = request(spec, category, 7)
    (made,) = map(rendered, opened(spec, tmp_path).generate([wanted]))
    size = wanted.size
    assert made.frames.shape == (size.frames, size.height, size.width, 3)
    assert made.frames.dtype == np.uint8
    assert made.defects is not None
    for defect in made.defects:
        assert defect.kind in KINDS
        assert 0 < defect.severity <= 1
    if "flawless" in spec.name:
        assert made.defects == ()
    if "flawed" in spec.name:
        assert sum(d.severity for d in made.defects if category in KINDS[d.kind]) >= 0.8


@pytest.mark.parametrize(("spec", "category"), EVERY, ids=NAMES)
def test_order_and_company_of_requests_change_nothing(
    spec: GeneratorSpec, category: str, tmp_path: Path
) -> None:
    wanted = [request(spec, category, seed) for seed in (1, 2)]
    together = list(map(rendered, opened(spec, tmp_path).generate(wanted)))
    apart = [rendered(*opened(spec, tmp_path).generate([one])) for one in reversed(wanted)][::-1]
    for a, b in zip(together, apart, strict=True):
        assert a.defects == b.defects
        np.testing.assert_array_equal(a.frames, b.frames)
    assert not np.array_equal(together[0].frames, together[1].frames)


@pytest.mark.parametrize("spec", EMBEDDED, ids=lambda spec: spec.name)
def test_what_cannot_be_drawn_is_an_item_error_and_the_rest_is_drawn(
    spec: GeneratorSpec, tmp_path: Path
) -> None:
    category = OF_MODALITY[spec.modality][1]
    crowd = Checks(objects=(ObjectCheck(name="fish", count=5000, colour=None),))
    generator = opened(spec, tmp_path)
    wanted = [request(spec, category, 1, crowd), request(spec, category, 2)]
    refused, made = generator.generate(wanted)
    assert isinstance(refused, ItemError)
    assert "\n" not in str(refused)
    assert isinstance(made, Rendered)
    generator.close()
