"""Training files: those that ship are right, and a mistake is refused in one line that says what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.train.settings import Training, load

FOLDER = Path(__file__).parents[2] / "infra" / "train"
FILES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_files_that_ship_are_right(path: Path) -> None:
    assert load(path).optim.lr > 0


@pytest.mark.parametrize("path", [p for p in FILES if "demo" not in p.stem], ids=lambda path: path.stem)
def test_every_number_says_whether_it_was_published(path: Path) -> None:
    text = path.read_text()
    assert "published" in text
    if "sdxl-sft" in path.stem:
        assert "lr = 2e-9" in text


def broken(tmp_path: Path, *changes: tuple[str, str]) -> Training:
    text = (FOLDER / "demo-dpo.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("kappa = 200.0", "beta = 5000.0"),
            r"beta = 5000 means something else .*kappa, .*VideoDPO: 2500; .*: 5000",
        ),
        (("kappa = 200.0", ""), r"objective\.kappa is missing"),
        (("alpha = 1.0", "alpha = -1.5"), "alpha = -1.5 gives the loss a spurious minimum"),
        (("alpha = 1.0", "higher = [-9.0]"), "spurious minimum"),
        (("kappa =", "kapa ="), r"unknown key 'objective\.kapa': did you mean 'kappa'"),
        (('kind = "dpo"', 'kind = "sft"'), "kappa, alpha, higher, safeguard, sft are of kind dpo"),
        (("alpha = 1.0", 'weighting = "1-t"'), "is for flow models; sd15 is none"),
        (('reference = "frozen"', ""), "reference = 'adapters' needs train = 'lora'"),
        (("micro_batch = 16", "micro_batch = 5"), "micro_batch must divide batch"),
        (("width = 128", "width = 100"), "multiples of 16"),
        (("height = 128", "height = 128, frames = 5"), "sd15 makes images: frames must be 1"),
        (("checkpoint = 50", "checkpoint = 55"), r"multiple of output\.log"),
        (('name = "alignment"', 'name = "alignment", weight = 0.0'), "weight must be above 0"),
        (("steps = 100", 'steps = 100\nkind = "adamw8bit"\n[parallel]\nkind = "fsdp"'), "divided by fsdp"),
        (("every = 50", "every = 15"), r"samples\.every must be a multiple of output\.log"),
        (("steps = 8", "steps = 0"), r"samples\.prompts must not be empty, and samples\.steps above 0"),
        (("checkpoint = 50", 'checkpoint = 50\ntrackers = ["wandbb"]'), r"output\.trackers.*wandb"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        broken(tmp_path, change)
    assert "mine.toml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cached_reference_errors_need_a_cache(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cached' keeps errors under data\.cache: set it"):
        broken(
            tmp_path,
            ('reference = "frozen"', 'reference = "cached"'),
            ('cache = "runs/train-demo/cache"', ""),
        )


def test_a_checkpoint_goes_on_with_more_updates_but_not_with_another_objective() -> None:
    given = load(FOLDER / "demo-dpo.toml")
    longer = replace(given, optim=replace(given.optim, steps=10_000), output=replace(given.output, keep=9))
    other = replace(given, objective=replace(given.objective, kappa=1.0))
    assert longer.fingerprint == given.fingerprint
    assert other.fingerprint != given.fingerprint
