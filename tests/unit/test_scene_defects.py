"""What the embedded renderer does wrong: how often, how badly, and whom it harms."""

import numpy as np
import pytest

from pipeline.generators.scene.defects import KINDS, PROFILES, Profile, Rate, draw_defects, harm
from pipeline.records import Defect

CATEGORIES = sorted({category for categories in KINDS.values() for category in categories})
VARIANTS = [name for name in PROFILES if name not in ("flawless", "flawed")]
SWAPPED = Profile(name="swapped", rates={"swapped_relation": Rate(probability=1, low=0.5, high=0.5)})


def test_all_eight_categories_can_be_harmed() -> None:
    assert len(CATEGORIES) == 8


def test_harm_counts_only_the_kinds_that_harm_the_category() -> None:
    defects = (Defect(kind="noise", severity=0.5), Defect(kind="misspelt", severity=0.25))
    assert harm("aesthetics", defects) == 0.5
    assert harm("text_rendering", defects) == 0.25
    assert harm("portrait", defects) == 0
    assert harm("no such category", defects) == 0


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("name", VARIANTS)
def test_about_half_of_a_variants_generations_are_noticeably_wrong(name: str, category: str) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    harmed = [harm(category, draw_defects(rng, PROFILES[name], category)) >= 0.25 for _ in range(1500)]
    assert 0.42 <= np.mean(harmed) <= 0.68


def test_variants_differ_in_their_errors_but_none_is_free_of_a_kind() -> None:
    for kind in KINDS:
        chances = [PROFILES[name].rates[kind].probability for name in VARIANTS]
        assert min(chances) > 0
        assert max(chances) >= 1.5 * min(chances)


@pytest.mark.parametrize("category", CATEGORIES)
def test_gold_profiles_are_clean_and_severely_wrong(category: str) -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    for _ in range(50):
        assert draw_defects(rng, PROFILES["flawless"], category) == ()
        assert harm(category, draw_defects(rng, PROFILES["flawed"], category)) >= 0.8


def test_an_impossible_kind_falls_to_a_possible_one() -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    for _ in range(50):
        defects = draw_defects(rng, SWAPPED, "alignment", {"wrong_count"})
        assert [defect.kind for defect in defects] == ["wrong_count"]
    assert draw_defects(rng, PROFILES["flawed"], "alignment", ()) == ()
