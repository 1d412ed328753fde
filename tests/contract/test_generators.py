"""Every embedded generator keeps the promises of ``generators/base.py``."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import Generator, GeneratorSpec, Request
from pipeline.generators.scene.defects import KINDS
from pipeline.generators.table import GENERATORS, make_generator
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt

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
    return Request(prompt=prompt, seed=seed, size=SIZES[spec.modality])


def opened(spec: GeneratorSpec) -> Generator:
    generator = make_generator(spec)
    generator.open()
    return generator


def test_there_are_five_variants_and_two_gold_profiles_for_each_modality() -> None:
    for modality in ("image", "video"):
        names = {spec.name for spec in EMBEDDED if spec.modality == modality}
        suffix = "-video" if modality == "video" else ""
        assert {f"scene/flawless{suffix}", f"scene/flawed{suffix}"} < names
        assert len(names) >= 7
    assert [name for name, spec in GENERATORS.items() if name != spec.name] == []


@pytest.mark.parametrize(("spec", "category"), EVERY, ids=NAMES)
def test_frames_have_the_size_asked_for_and_defects_are_known(spec: GeneratorSpec, category: str) -> None:
    wanted = request(spec, category, 7)
    (rendered,) = opened(spec).generate([wanted])
    size = wanted.size
    assert rendered.frames.shape == (size.frames, size.height, size.width, 3)
    assert rendered.frames.dtype == np.uint8
    assert rendered.defects is not None
    for defect in rendered.defects:
        assert defect.kind in KINDS
        assert 0 < defect.severity <= 1
    if "flawless" in spec.name:
        assert rendered.defects == ()
    if "flawed" in spec.name:
        assert sum(d.severity for d in rendered.defects if category in KINDS[d.kind]) >= 0.8


@pytest.mark.parametrize(("spec", "category"), EVERY, ids=NAMES)
def test_order_and_company_of_requests_change_nothing(spec: GeneratorSpec, category: str) -> None:
    wanted = [request(spec, category, seed) for seed in (1, 2)]
    together = list(opened(spec).generate(wanted))
    apart = [next(iter(opened(spec).generate([one]))) for one in reversed(wanted)][::-1]
    for a, b in zip(together, apart, strict=True):
        assert a.defects == b.defects
        np.testing.assert_array_equal(a.frames, b.frames)
    assert not np.array_equal(together[0].frames, together[1].frames)


@pytest.mark.parametrize("spec", EMBEDDED, ids=lambda spec: spec.name)
def test_what_cannot_be_drawn_is_an_item_error(spec: GeneratorSpec) -> None:
    category = OF_MODALITY[spec.modality][1]
    crowd = Checks(objects=(ObjectCheck(name="fish", count=5000, colour=None),))
    generator = opened(spec)
    with pytest.raises(ItemError) as error:
        list(generator.generate([request(spec, category, 1, crowd)]))
    assert "\n" not in str(error.value)
    generator.close()
