"""Settings: what stands in the repository is right, and mistakes get one line with the remedy."""

import dataclasses
from pathlib import Path

import pytest

from pipeline import api
from pipeline.config import data_root, from_json, load_category, load_profile, to_json
from pipeline.errors import ConfigError
from pipeline.stages.check import check

CATEGORIES = data_root() / "categories"
IMAGE = {"aesthetics", "alignment", "text_rendering", "portrait", "composition"}
VIDEO = {"motion_quality", "video_alignment", "visual_quality"}


def test_the_eight_categories_are_there_and_fit_the_tables() -> None:
    settings = api.load("laptop")
    check(settings)
    assert {c.name for c in settings.categories} == IMAGE | VIDEO
    for category in settings.categories:
        image = category.name in IMAGE
        assert category.modality == ("image" if image else "video")
        assert category.quota == (200_000 if image else 100_000)
        size = category.size
        assert (size.width, size.height) == (1024, 1024) if image else size.width * size.height >= 1280 * 720
        assert image or size.frames >= 33
        assert len(category.rubric.criteria) >= 3
        assert len(settings.cast(category).judges) >= 3


def test_settings_come_back_from_a_run_as_they_went() -> None:
    settings = api.load("laptop", quota=7, runner="ray")
    assert from_json(to_json(settings), "run") == settings


def test_command_line_settings_replace_those_of_the_profile() -> None:
    settings = api.load("laptop", categories=["portrait"], quota=5, runner="ray", workers=3)
    assert (settings.profile.runner, settings.profile.workers) == ("ray", 3)
    assert [settings.quota(category) for category in settings.categories] == [5]


def test_a_modality_picks_its_categories() -> None:
    assert {c.name for c in api.load("cluster", modality="video").categories} == VIDEO


def category_file(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """Copy alignment.toml with lines replaced."""
    text = (CATEGORIES / "alignment.toml").read_text()
    for old, new in changes:
        assert old in text, f"alignment.toml has no {old!r}: mend this test"
        text = text.replace(old, new)
    path = tmp_path / "categories" / "alignment.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("quota =", "qouta =", "unknown key 'qouta': did you mean 'quota'?"),
        ("votes = 2", "vote = 2", "unknown key 'policy.vote': did you mean 'votes'?"),
        (
            'modality = "image"',
            'modality = "imgae"',
            "'imgae' is not known: did you mean 'image'?",
        ),
        ("quota = 200_000", "quota = 0", "quota must be above 0"),
        ("quota = 200_000", 'quota = "many"', "quota = 'many' must be of type int"),
        ('name = "alignment"', 'name = "alignments"', "must equal the file's name 'alignment'"),
        (
            "height = 1024",
            "height = 1024, fps = 8",
            "size.fps must be above 0 for a video",
        ),
        ("share = 0.1", "share = 0.5", "recipes shares add up to 1.4, must be 1"),
        ('question = "', 'question = 3 # "', "rubric.question = 3 must be of type str"),
        ("[policy]", "[policy", "cannot be read as TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_category(category_file(tmp_path, (old, new)))
    assert "categories/alignment.toml: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"scene/hasty"', '"scene/hastey"', "did you mean 'scene/hasty'?"),
        ('"objects-palette"', '"objects-pallete"', "did you mean 'objects-palette'?"),
        ('"scene/hasty"', '"scene/hasty-video"', "which is for videos"),
        ('"scene/hasty"', '"scene/steady"', "twice"),
        ("votes = 2", "votes = 9", "cannot be reached by 3 judges"),
        ('kind = "unanimous"', 'kind = "unanimus"', "did you mean 'unanimous'?"),
        ('kind = "across_models"', 'kind = "across_modles"', "did you mean 'across_models'?"),
        ("generations = 4", "generations = 40", "needs 40 generators"),
        ("quota = 200_000", "quota = 999_000_000", "cannot be met"),
        ('winner = "scene/flawless"', "", "needs a winner and a loser"),
        ("height = 1024", "height = 0", "size.height = 0 must be a multiple of 1 above 0"),
    ],
)
def test_names_and_numbers_are_checked_against_the_tables(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    category = load_category(category_file(tmp_path, (old, new)))
    settings = api.load("laptop", categories=["alignment"])
    profile = dataclasses.replace(settings.profile, image_quota=None)
    with pytest.raises(ConfigError, match=r"categories/alignment\.toml") as caught:
        check(dataclasses.replace(settings, profile=profile, categories=(category,)))
    assert message in str(caught.value)


def test_a_pool_of_the_user_needs_hash_and_licence(tmp_path: Path) -> None:
    path = category_file(tmp_path, ("[rubric]", '[pool]\nuri = "mine.jsonl"\n\n[rubric]'))
    settings = dataclasses.replace(api.load("laptop"), categories=(load_category(path),))
    with pytest.raises(ConfigError, match=r"pool\.sha256 is missing"):
        check(settings)


def test_a_profile_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    text = (data_root() / "infra/profiles/laptop.toml").read_text()
    path.write_text(text.replace("bucket_size = 4", "bucket_size = 0"))
    with pytest.raises(ConfigError, match="bucket_size must be above 0"):
        load_profile(path)


def test_an_unknown_profile_or_category_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'laptop'"):
        api.load("labtop")
    with pytest.raises(ConfigError, match="did you mean 'portrait'"):
        api.load("laptop", categories=["portraits"])
