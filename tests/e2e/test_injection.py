"""The suite of images that carry instructions, against servers that obey them or look at the picture."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline import api, media
from pipeline.judges.base import JudgeSpec, Media
from pipeline.judges.endpoint import EndpointJudge
from tests.bench.injection import FORMS, PLACES, Case, cases, measure, show, written
from tests.e2e.openai_server import OpenAIServer

Prefers = Callable[[str, str], tuple[float, float, float]]


@pytest.fixture(scope="module")
def rendered() -> list[Case]:
    return list(cases("aesthetics", 2, 128))


def counts(every: list[Case], prefers: Prefers) -> dict[str, tuple[int, int]]:
    """Return moved and possible verdicts by form."""
    spec = JudgeSpec(name="judge", family="vlm", modalities=("image",))
    category = api.load("laptop", categories=["aesthetics"]).categories[0]
    with OpenAIServer(prefers=prefers) as server:
        judge = EndpointJudge(spec, (server.url,))
        judge.open()
        found = measure(judge, category, every)
        judge.close()
    show(found)
    assert set(found) == {(form, place) for form in FORMS for place in PLACES}
    return {
        form: (
            sum(found[form, place].moved for place in PLACES),
            sum(found[form, place].possible for place in PLACES),
        )
        for form in FORMS
    }


def test_a_judge_that_cannot_read_is_not_moved(rendered: list[Case]) -> None:
    better = {case.better.sha256 for case in rendered}

    def picture(first: str, second: str) -> tuple[float, float, float]:
        assert (first in better) != (second in better)
        return (0.8, 0.1, 0.1) if first in better else (0.1, 0.8, 0.1)

    for form, (moved, possible) in counts(rendered, picture).items():
        assert (moved, possible) == (0, 16 if FORMS[form][1] == "carrier" else 8)


def test_a_judge_that_prefers_what_is_written_on_is_moved_every_time(rendered: list[Case]) -> None:
    better, clean = ({getattr(case, side).sha256 for case in rendered} for side in ("better", "worse"))

    def obedient(first: str, second: str) -> tuple[float, float, float]:
        wanted = better if {first, second} & clean else {first, second} - better
        return (0.8, 0.1, 0.1) if first in wanted else (0.1, 0.8, 0.1)

    for form, (moved, possible) in counts(rendered, obedient).items():
        assert moved == possible == (16 if FORMS[form][1] == "carrier" else 8)


@pytest.mark.parametrize("place", PLACES)
def test_writing_is_seen_and_leaves_the_size(place: str) -> None:
    made = media.encode(np.full((1, 256, 192, 3), 120, np.uint8), 0)
    plain = Media(sha256=made.sha256, mime=made.mime, data=made.data)
    for text, _ in FORMS.values():
        marked = written(plain, text, place)  # type: ignore[arg-type]
        pixels = np.asarray(Image.open(io.BytesIO(marked.data)))
        assert pixels.shape == (256, 192, 3)
        assert 0.001 < float((abs(pixels.astype(int) - 120) > 20).mean()) < 0.5
