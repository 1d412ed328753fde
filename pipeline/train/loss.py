"""Poly-DPO: what is minimised, how it bends, and what other trainers call kappa.

e is the mean squared denoising error of a sample over all its elements. With the errors of policy and
reference model on winner w and loser l, all four at one timestep and with one noise,

    z = -kappa [(e_w - e_l) - (e_w_ref - e_l_ref)]
    L = -log sigmoid(z) + sum_k alpha_k sigmoid(-z)^k        p = sigmoid(z)
    dL/dz = -(1 - p) (1 + p sum_k k alpha_k (1 - p)^(k-1))

alpha_1 alone is Poly-DPO (ViPO, arXiv 2604.24953); no alpha is Diffusion-DPO (arXiv 2311.12908), exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.polynomial import Polynomial

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


LEAST = 1e-15
"""A coefficient below which a power is as good as not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How a trainer's beta becomes kappa: ``factor`` x beta, times a latent's elements if it sums errors."""

    used_by: str
    factor: float
    summed: bool = False


CONVENTIONS = {
    "half": Convention(used_by="Salesforce DiffusionDPO, diffusers' SDXL example, VideoDPO", factor=0.5),
    "whole": Convention(used_by="diffusers' SD1.5 example", factor=1.0),
    "sum": Convention(used_by="SimpleTuner, which sums errors over a latent", factor=1.0, summed=True),
}
"""What "beta" means elsewhere. The same number differs by 2, or by the size of a latent."""


def kappa_of(beta: float, convention: str, elements: int = 1) -> float:
    """Return the kappa that equals ``beta`` of a convention; ``elements`` of one latent count for sums."""
    known = CONVENTIONS[convention]
    return beta * known.factor * (elements if known.summed else 1)


def beta_of(kappa: float, convention: str, elements: int = 1) -> float:
    """Return what a trainer of ``convention`` calls this kappa."""
    return kappa / kappa_of(1.0, convention, elements)


def conversions(beta: float) -> str:
    """Say in one line which kappa a beta is, for each convention."""
    return "; ".join(
        f"{known.used_by}: {'beta x elements of a latent' if known.summed else f'{kappa_of(beta, name):g}'}"
        for name, known in CONVENTIONS.items()
    )


def check_alphas(alphas: Sequence[float], where: str) -> None:
    """Refuse coefficients under which a higher margin may raise the loss. Raises ConfigError.

    Where 1 + p sum_k k alpha_k (1-p)^(k-1) is negative for some p, dL/dz is positive: the loss has a minimum
    that is not "winner preferred", and training stops there. For one alpha that is alpha < -1.
    """
    lowest = _steepness(alphas)
    if lowest < -1e-12:
        given = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise ConfigError(
            f"{where}: alpha = {given} gives the loss a spurious minimum: it rises with the margin where "
            f"dL/dz = -(1-p) x {lowest:.3g} > 0: keep a single alpha at -1 or above"
        )


def kappa_eff(kappa: float, alphas: Sequence[float]) -> float:
    """Return the kappa of the Diffusion-DPO that this loss behaves like near z = 0 under Adam.

    Adam divides the gradient's size out, so what is left of a loss there is how fast its gradient falls:
    L''(0) / |L'(0)|, one half for DPO. For one alpha this is kappa / (1 + alpha/2).
    """
    slope, curve = 1.0, 0.0  # g(p) and g'(p) at p = 1/2, where dL/dz = -(1-p) g(p)
    for k, alpha in enumerate(alphas, start=1):
        slope += k * alpha * 0.5**k
        curve += k * alpha * (0.5 ** (k - 1) - (k - 1) * 0.5 ** (k - 1))
    if slope <= 0:
        return float("inf")
    return kappa * (slope - 0.5 * curve) / slope


def sample_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Return [n] mean squared errors over all other dimensions, in float32 or better."""
    return residual(predicted, target).square().flatten(1).mean(1)


def residual(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the difference in float32 or better: squares of bf16 differences lose what DPO compares."""
    import torch

    exact = torch.promote_types(predicted.dtype, torch.float32)
    return predicted.to(exact) - target.to(exact)


def margin(kappa: float, winner: Tensor, loser: Tensor, ref_winner: Tensor, ref_loser: Tensor) -> Tensor:
    """Return z [n]; +0.0 exactly where policy and reference have equal errors."""
    return kappa * ((ref_winner - ref_loser) - (winner - loser))


def poly_dpo(z: Tensor, alphas: Sequence[float]) -> Tensor:
    """Return the loss [n] of margins ``z``.

    sigmoid(-z) stands for 1 - p, which in float32 is 0 beyond z = 17; logsigmoid is stable to any |z|.
    """
    from torch.nn.functional import logsigmoid

    loss = -logsigmoid(z)
    for k, alpha in enumerate(alphas, start=1):
        if alpha:
            loss = loss + alpha * (-z).sigmoid() ** k
    return loss


def safeguarded(loser: Tensor, winner_residual: Tensor, loser_residual: Tensor, scale: float) -> Tensor:
    """Return ``loser`` with the same value and a gradient that does not push the winner's error up.

    To first order in the space of predictions, a step along g_w - c g_l keeps the winner's error from
    rising if c <g_w, g_l> <= |g_w|^2; the gradient of each loser's error is scaled by the largest such c in
    [0, 1], times ``scale`` where that is below 1 (Diffusion-SDPO, arXiv 2511.03317).
    """
    with_winner = (winner_residual * loser_residual).detach().flatten(1).sum(1)
    own = winner_residual.detach().square().flatten(1).sum(1)
    safe = (scale * own / with_winner).clamp(max=1.0).where(with_winner > 0, 1.0)
    return loser.detach() + safe * (loser - loser.detach())


def _steepness(alphas: Sequence[float]) -> float:
    """Return the least 1 + p sum_k k alpha_k (1-p)^(k-1) over p in [0, 1]."""
    rest = Polynomial([0.0, *(k * alpha for k, alpha in enumerate(alphas, start=1))][1:] or [0.0])
    steep = 1 + Polynomial([1.0, -1.0]) * rest  # in q = 1 - p
    slope = steep.deriv().trim(LEAST)  # a leading coefficient of next to nothing has a root at infinity
    turns = [float(root.real) for root in slope.roots() if abs(root.imag) < 1e-9]
    return min(float(steep(q)) for q in (0.0, 1.0, *(q for q in turns if 0 < q < 1)))
