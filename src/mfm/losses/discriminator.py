"""An adversary that tells whether the discriminative code belongs to the generative one beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mfm.errors import ConfigurationError
from mfm.losses.hsic import MINIMUM_SAMPLES, centred_rows
from mfm.losses.precision import at_least_float32, without_autocast


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse_gradient(x: Tensor) -> Tensor:
    """The same values, their gradient negated (Ganin and Lempitsky, ICML 2015), so that descent becomes ascent."""
    reversed_: Tensor = _Reversed.apply(x)  # type: ignore[no-untyped-call]
    return reversed_


class DiscriminatorDependence(nn.Module):
    """Dependence of Z_y with each Z_ai, as a discriminator finds it that is trained along.

    One network T_i for each generative code tells pairs that belong together from pairs of a Z_y with the Z_ai of
    another sample of the batch, which has the distribution that independent codes would have (the density-ratio trick
    of FactorVAE, Kim and Mnih, ICML 2018, between two blocks instead of among dimensions):

        L_i = -1/2 E[log sigmoid T_i(Z_y, Z_ai)] - 1/2 E[log sigmoid -T_i(Z_y, Z'_ai)]
        R_i = penalty E[||grad T_i(Z_y, Z_ai)||^2]

    The value is log 2 - L_i, which the best T_i makes the Jensen-Shannon divergence of p(Z_y, Z_ai) from
    p(Z_y) p(Z_ai), in nats: from 0 for independent codes to log 2. Its gradient is made for one optimiser that descends
    on it: networks descend on L_i + R_i, while codes, whose gradient is reversed, ascend on L_i. Without R_i the two
    chase each other in circles, as deterministic codes lie on a surface that a network tells apart ever more sharply
    (R1 of Mescheder et al., ICML 2018). The T_i start at 0, without any pull on the codes. Codes are standardised over
    the batch before, so that their scale hides nothing.

    The pairs are drawn from the global random state of the codes' device.

    Args:
        z_y: Size of Z_y.
        z: Name -> size of Z_ai.
        hidden: Width of the two hidden layers of each network, >= 1.
        penalty: Weight of the networks' squared slope, >= 0.

    Raises:
        ConfigurationError: A width that is no number >= 1, or a penalty that is negative or not finite.
    """

    def __init__(self, z_y: int, z: Mapping[str, int], *, hidden: int = 64, penalty: float = 0.1) -> None:
        super().__init__()
        if not 0 <= penalty < math.inf:
            raise ConfigurationError(f"the penalty of the discriminator is {penalty!r}, but must be a number >= 0")
        self.penalty = penalty
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 1:
            raise ConfigurationError(f"the width of the discriminator is {hidden!r}, but must be a whole number >= 1")
        self.names = sorted(z)
        self.networks = nn.ModuleList([_network(z_y + z[name], hidden) for name in self.names])

    def forward(self, z_y: Tensor, z: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Dependence of Z_y with each generative code, over the samples that have it.

        Args:
            z_y: (B, z_y) codes.
            z: Name -> codes (B, z_i), and whether each sample has them, (B,) bool; for every name given before.

        Returns:
            `independence/<name>` -> scalar <= log 2, negative where a network is worse than a guess; 0 where fewer than
            `MINIMUM_SAMPLES` samples have the code.
        """
        found = {}
        with without_autocast(z_y):
            for name, network in zip(self.names, self.networks, strict=True):
                code, known = z[name]
                loss = _pair_loss(network, z_y, code, known)
                game = loss
                if self.penalty and torch.is_grad_enabled():
                    game = loss + self.penalty * _squared_slope(network, z_y, code, known)
                # the value falls with independence, the gradient is that of the game
                value = math.log(2.0) - loss.detach() + (game - game.detach())
                found[f"independence/{name}"] = value.masked_fill(known.sum() < MINIMUM_SAMPLES, 0.0)
        return found


def _pair_loss(network: nn.Module, z_y: Tensor, code: Tensor, known: Tensor) -> Tensor:
    """L of one network over the samples that are known."""
    first, second = (_standardised(reverse_gradient(one), known) for one in (z_y, code))
    together = network(torch.cat([first, second], dim=1))[:, 0]
    apart = network(torch.cat([first, second[_partners(known)]], dim=1))[:, 0]
    real = known.to(together.dtype)
    return 0.5 * ((softplus(-together) + softplus(apart)) * real).sum() / real.sum().clamp(min=1.0)


def _squared_slope(network: nn.Module, z_y: Tensor, code: Tensor, known: Tensor) -> Tensor:
    """E[||grad T||^2] at the pairs that belong together; codes get no gradient of it."""
    pairs = torch.cat([_standardised(one.detach(), known) for one in (z_y, code)], dim=1).requires_grad_()
    real = known.to(pairs.dtype)
    (slope,) = torch.autograd.grad((network(pairs)[:, 0] * real).sum(), pairs, create_graph=True)
    return (slope.square().sum(dim=1) * real).sum() / real.sum().clamp(min=1.0)


def _partners(known: Tensor) -> Tensor:
    """(B,) for each sample that is known another one that is, all in one random circle; nothing of use for the others.

    Without waiting for the device: how many are known stays there.
    """
    keys = torch.rand(len(known), device=known.device).masked_fill(~known, 2.0)
    order = keys.argsort()  # those that are known come first
    following = (torch.arange(len(known), device=known.device) + 1) % known.sum().clamp(min=1)
    return torch.empty_like(order).scatter_(0, order, order[following])


def _standardised(x: Tensor, known: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the samples that are known, zeros elsewhere; the scale gets no gradient."""
    centred, real = centred_rows(at_least_float32(x), known)
    variance = centred.detach().square().sum(dim=0) / real.sum().clamp(min=1.0)
    return centred / variance.sqrt().clamp(min=1e-6)


def _network(inputs: int, hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)
