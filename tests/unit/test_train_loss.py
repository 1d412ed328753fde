"""The published loss, its derivatives, its numerics, and what other trainers call kappa."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.train import loss

# z, alpha, L, dL/dz: published values, to nine digits.
ORACLE = [
    (-2.0, -1.0, 1.246130933, -0.775803493),
    (-2.0, 0.0, 2.126928011, -0.880797078),
    (-2.0, 1.0, 3.007725089, -0.985790663),
    (-2.0, 8.0, 9.173304635, -1.720745761),
    (0.0, -1.0, 0.193147181, -0.25),
    (0.0, 0.0, 0.693147181, -0.5),
    (0.0, 1.0, 1.193147181, -0.75),
    (0.0, 8.0, 4.693147181, -2.5),
    (2.0, -1.0, 0.007725089, -0.014209337),
    (2.0, 0.0, 0.126928011, -0.119202922),
    (2.0, 1.0, 0.246130933, -0.224196507),
    (2.0, 8.0, 1.080551387, -0.959151605),
]
finite = st.floats(-30, 30)
alphas = st.lists(st.floats(-1, 8), min_size=0, max_size=3)


def gradient(z: torch.Tensor, some: list[float]) -> torch.Tensor:
    point = z.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss.poly_dpo(point, some).sum(), point)
    return found


def of(z: float, given_alphas: list[float]) -> tuple[float, float, float]:
    """Loss, first and second derivative by autograd in float64."""
    point = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    value = loss.poly_dpo(point, given_alphas).sum()
    (first,) = torch.autograd.grad(value, point, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), point)
    return value.item(), first.item(), second.item()


@pytest.mark.parametrize(("z", "alpha", "value", "slope"), ORACLE)
def test_the_oracle_table(z: float, alpha: float, value: float, slope: float) -> None:
    found, first, _ = of(z, [alpha])
    assert found == pytest.approx(value, abs=1e-9)
    assert first == pytest.approx(slope, abs=1e-9)


@given(finite, st.floats(-1, 8))
def test_the_loss_is_what_the_paper_says(z: float, alpha: float) -> None:
    p = 1 / (1 + math.exp(-z))
    one_less = 1 / (1 + math.exp(z))  # 1 - p, without cancelling
    published = -math.log(p) + alpha * one_less
    found, first, second = of(z, [alpha])
    assert found == pytest.approx(published, rel=1e-6, abs=1e-12)
    assert first == pytest.approx(-one_less * (1 + alpha * p), rel=1e-6, abs=1e-12)
    assert second == pytest.approx(p * one_less * (1 - alpha + 2 * alpha * p), rel=1e-6, abs=1e-9)


@given(finite, alphas)
def test_any_order_has_the_derivative_that_is_stated(z: float, some: list[float]) -> None:
    p, q = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))
    stated = -q * (1 + p * sum(k * alpha * q ** (k - 1) for k, alpha in enumerate(some, 1)))
    assert of(z, some)[1] == pytest.approx(stated, rel=1e-6, abs=1e-12)


@given(finite)
def test_without_alpha_it_is_diffusion_dpo_to_the_bit(z: float) -> None:
    point = torch.tensor([z])
    dpo = -torch.nn.functional.logsigmoid(point)
    assert torch.equal(loss.poly_dpo(point, []), dpo)
    assert torch.equal(loss.poly_dpo(point, [0.0]), dpo)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_margin_is_too_large(dtype: torch.dtype) -> None:
    z = torch.tensor([-1e4, -100, -18, 0, 18, 100, 1e4], dtype=dtype)
    assert loss.poly_dpo(z, [8.0, -0.5]).isfinite().all()
    slopes = gradient(z, [8.0, -0.5])
    assert slopes.isfinite().all()
    assert (slopes[:4] < 0).all(), "a pair that is ranked wrongly always has a gradient"


def test_the_gradient_of_a_settled_pair_does_not_vanish_early() -> None:
    z = torch.tensor([18.0])  # where 1 - sigmoid(z) is 0 in float32
    assert gradient(z, [8.0]).item() == pytest.approx(-9 * math.exp(-18), rel=1e-3)


@pytest.mark.parametrize("some", [[-1.01], [-8.0], [0.0, -3.0], [0.0, 0.0, -5.0]])
def test_a_spurious_minimum_is_refused_with_the_reason(some: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: alpha = .*spurious minimum.*-1 or above"):
        loss.check_alphas(some, "mine.toml")


@settings(max_examples=25)
@given(alphas)
@example([0.0, 1.0, 5e-324])
def test_what_is_accepted_never_rises_with_the_margin(some: list[float]) -> None:
    try:
        loss.check_alphas(some, "mine.toml")
    except ConfigError:
        assert max(of(z / 4, some)[1] for z in range(-60, 61)) > -1e-6
    else:
        assert max(of(z / 4, some)[1] for z in range(-60, 61)) <= 1e-9


@given(st.floats(1, 1e4), st.floats(-1, 8))
def test_kappa_eff_is_the_matched_dpo(kappa: float, alpha: float) -> None:
    assert loss.kappa_eff(kappa, [alpha]) == pytest.approx(kappa / (1 + alpha / 2))


@given(alphas)
def test_kappa_eff_of_any_order_follows_from_the_derivatives(some: list[float]) -> None:
    _, first, second = of(0.0, some)
    if first < -1e-3:
        assert loss.kappa_eff(10.0, some) == pytest.approx(10 * 2 * second / -first, rel=1e-6)


def test_matched_controls_have_the_same_first_adam_directions() -> None:
    """Gradients of pairs with small margins are the same for both losses, up to one common factor."""
    z, alpha = torch.linspace(-1e-3, 1e-3, 9, dtype=torch.float64), 4.0
    ratio = loss.kappa_eff(1.0, [alpha])
    factor = gradient(z, [alpha]) / gradient(ratio * z, [])
    assert float((factor.max() - factor.min()) / factor.mean()) < 1e-6


@given(st.floats(1, 1e4), st.sampled_from(sorted(loss.CONVENTIONS)), st.integers(1, 10**6))
def test_kappa_and_beta_convert_both_ways(kappa: float, convention: str, elements: int) -> None:
    beta = loss.beta_of(kappa, convention, elements)
    assert loss.kappa_of(beta, convention, elements) == pytest.approx(kappa)


def test_conventions_agree_on_one_loss() -> None:
    """Each trainer's own formula, written out, gives the same z from its own beta."""
    four = torch.rand(4, 3, 4, 2, 2, dtype=torch.float64)
    kappa, elements = 2500.0, 16
    gap = (four[0] - four[1]) - (four[2] - four[3])
    mean, total = gap.flatten(1).mean(1), gap.flatten(1).sum(1)
    ours = loss.margin(kappa, *(errors.flatten(1).mean(1) for errors in four))
    torch.testing.assert_close(-0.5 * loss.beta_of(kappa, "half") * mean, ours)
    torch.testing.assert_close(-loss.beta_of(kappa, "whole") * mean, ours)
    torch.testing.assert_close(-loss.beta_of(kappa, "sum", elements) * total, ours)
    assert loss.kappa_of(5000, "half") == 2500


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 16, 3, 8, 8), (2, 64, 16)])
def test_errors_are_means_over_every_dimension_but_the_batch(shape: tuple[int, ...]) -> None:
    one, other = torch.randn(shape), torch.randn(shape)
    by_hand = torch.stack([((a - b) ** 2).sum() / a.numel() for a, b in zip(one, other, strict=True)])
    torch.testing.assert_close(loss.sample_errors(one, other), by_hand)
    assert loss.sample_errors(one.bfloat16(), other.bfloat16()).dtype == torch.float32


def test_equal_errors_give_a_margin_of_zero_to_the_bit() -> None:
    winner, loser = torch.rand(100), torch.rand(100)
    z = loss.margin(2500.0, winner, loser, winner.clone(), loser.clone())
    assert torch.equal(z.view(torch.int32), torch.zeros(100, dtype=torch.int32))


@given(st.integers(0, 1000))
def test_the_safeguard_never_lets_the_winner_get_worse(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    winner, loser = torch.randn(2, 4, 6, generator=generator).unbind(0)
    loser.requires_grad_()
    error = loser.square().mean(1)
    kept = loss.safeguarded(error, winner, loser, 1.0)
    assert torch.equal(kept, error), "the value stays as it is"
    (plain,) = torch.autograd.grad(error.sum(), loser, retain_graph=True)
    (scaled,) = torch.autograd.grad(kept.sum(), loser)
    to_winner = 2 * winner / winner.shape[1]
    # What a step along minus (winner's - loser's gradient) does to the winner's error, to first order.
    change = -(to_winner * (to_winner - scaled)).sum(1)
    assert (change <= 1e-6).all()
    harmless = (winner * loser).sum(1) <= winner.square().sum(1)
    assert torch.equal(scaled[harmless], plain[harmless]), "harmless losers keep their gradient"
