"""Which arms a sweep has, what it refuses before it trains, and what it says of what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main as vipo
from pipeline.train.loss import kappa_eff
from pipeline.train.measure import Estimate
from pipeline.train.sweep import ALPHAS, Arm, Compared, Result, plan

FILES = Path(__file__).parents[2] / "infra" / "train"


def test_every_alpha_has_its_control_and_no_arm_is_trained_twice() -> None:
    arms, compared = plan(ALPHAS, [200.0])
    assert [(arm.alpha, control.alpha) for arm, control in compared] == [(a, 0.0) for a in ALPHAS if a]
    for arm, control in compared:
        assert control.kappa == pytest.approx(kappa_eff(200.0, [arm.alpha]))
    assert len(arms) == 9
    # The control of alpha -1 at 200 is alpha 0 at 400; that of alpha 1 at 300 is alpha 0 at 200.
    arms, compared = plan([-1.0, 0.0, 1.0], [200.0, 400.0, 300.0])
    assert sorted(arms) == [
        *("alpha+0-kappa133.333", "alpha+0-kappa200", "alpha+0-kappa266.667", "alpha+0-kappa300"),
        *("alpha+0-kappa400", "alpha+0-kappa600", "alpha+0-kappa800"),
        *("alpha+1-kappa200", "alpha+1-kappa300", "alpha+1-kappa400"),
        *("alpha-1-kappa200", "alpha-1-kappa300", "alpha-1-kappa400"),
    ]
    assert len(compared) == 6


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (
            ["--alpha", "-1", "-1.5"],
            (),
            "alpha-1.5-kappa200: alpha = -1.5 gives the loss a spurious",
        ),
        (["--kappa", "0"], (), "objective.kappa is missing or not above 0"),
        (["--seeds", "0"], (), "no seeds or no alphas"),
        (["--until", "3"], (), "--until and --ray-workers are of a single training"),
        ([], [("alpha = 1.0", "higher = [0.1]")], "objective.higher is set and only alpha is varied"),
    ],
)
def test_what_could_say_nothing_is_refused_before_anything_is_trained(
    arguments: list[str],
    changes: list[tuple[str, str]],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (FILES / "demo-dpo.toml").read_text()
    for old, new in changes:
        text = text.replace(old, new)
    file = tmp_path / "mine.toml"
    file.write_text(text)
    assert vipo(["train", "sweep", str(file), "--folder", str(tmp_path / "sweep"), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_sft_and_options_of_a_sweep_without_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert vipo(["train", "sweep", str(FILES / "demo-sft.toml")]) == 1
    assert "objective.kind is sft, which has no alpha" in capsys.readouterr().err
    assert vipo(["train", str(FILES / "demo-dpo.toml"), "--alpha", "1"]) == 1
    assert "are of a sweep: vipo train sweep" in capsys.readouterr().err


def result(*differences: tuple[float, float, float], seeds: int = 2) -> Result:
    nothing = Estimate(value=0, low=0, high=0)
    compared = []
    for alpha, (value, low, high) in enumerate(differences, start=1):
        arm = Arm(alpha=float(alpha), kappa=200.0)
        found = Estimate(value=value, low=low, high=high)
        compared.append(
            Compared(
                arm=arm, control=arm.control, accuracy=found, winner_change=nothing, loser_change=nothing
            )
        )
    return Result(kappas=(200.0,), seeds=seeds, pairs=9, visits=8, arms=(), compared=tuple(compared))


def test_it_says_plainly_when_alpha_is_not_told_from_its_control() -> None:
    none = result((0.01, -0.02, 0.04), (0.0, 0.0, 0.0))
    assert [one.words for one in none.compared] == [
        "+0.010 (-0.020 to +0.040): the interval contains 0: not told from DPO at kappa 133.333",
        "+0.000 (+0.000 to +0.000): the interval contains 0: not told from DPO at kappa 100",
    ]
    assert none.verdict.startswith("0 of 2 alphas depart from their kappa-matched control: none is told")
    assert none.verdict.endswith("nothing is said of the data's quality")
    some = result((0.01, -0.02, 0.04), (-0.1, -0.2, -0.05), seeds=1)
    assert some.compared[1].words == "-0.100 (-0.200 to -0.050): worse than DPO at kappa 100"
    assert "1 of 2 alphas depart from their kappa-matched control: alpha+2-kappa200: only" in some.verdict
    assert some.verdict.endswith("one seed: intervals leave out the luck of a training")
