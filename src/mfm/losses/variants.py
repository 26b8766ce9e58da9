"""The objective of the ablations: that of MFM over whatever blocks of codes a variant has, with MMD or KL."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfm.losses.kl import gaussian_kl
from mfm.losses.objective import LossParts, MFMObjective, _weight


class VariantObjective(MFMObjective):
    """`MFMObjective` for models without some of MFM's blocks of codes, or with a Gaussian posterior.

        c_Y(Y, Y^) + sum_i lda_i c_Xi(X_i, X^_i) + D      D = lda_mmd MMD(Q_Z, N(0, I))   (point posterior)
                                                          D = beta sum_blocks KL(Q_block || N(0, I))   (Gaussian)

    A model that generates nothing has no D; for MFM's blocks and a point posterior it equals `MFMObjective`. Parts as
    there, and with KL `kl/<block>` in place of MMD: `kl/z_y`, `kl/<modality>`, `kl/shared`. KL is in nats, summed over
    dimensions, while costs c_X are means over steps and features: a unit-variance ELBO divided by half the number of
    values of a sequence, so that its beta of 1 is a `beta` of about 2 / (T D) here.

    Args:
        task: As in `MFMObjective`.
        beta: Weight of KL.
        **options: As in `MFMObjective`.

    Raises:
        ConfigurationError: As in `MFMObjective`.
    """

    def __init__(self, task: str, *, beta: float = 1.0, **options: object) -> None:
        super().__init__(task, **options)  # type: ignore[arg-type]  # checked there
        self.beta = _weight("kl", beta)

    def of_blocks(
        self,
        prediction: Tensor,
        target: Tensor,
        target_mask: Tensor,
        reconstruction: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        blocks: Mapping[str, tuple[Tensor, Tensor]],
        log_variance: Mapping[str, Tensor] | None,
        *,
        modalities: list[str],
    ) -> LossParts:
        """Compute the objective of a batch.

        Args:
            prediction: As in `MFMObjective.forward`.
            target: As in `MFMObjective.forward`.
            target_mask: As in `MFMObjective.forward`.
            reconstruction: As in `MFMObjective.forward`.
            features: As in `MFMObjective.forward`.
            lengths: As in `MFMObjective.forward`.
            present: As in `MFMObjective.forward`.
            blocks: Name -> codes (B, d), means where the posterior is Gaussian, and whether a sample has them, (B,)
                bool; `z_y` first where there is one. None for a model without prior.
            log_variance: Name -> (B, d) for the same blocks; None for a point posterior.
            modalities: Every modality of the model.

        Returns:
            The weighted total and the unweighted parts.
        """
        parts, weighted = self.costs(
            prediction, target, target_mask, reconstruction, features, lengths, present, modalities=modalities
        )
        if log_variance is not None:
            kl = {f"kl/{name}": gaussian_kl(code, log_variance[name], known) for name, (code, known) in blocks.items()}
            parts |= kl
            weighted += [self.beta * part for part in kl.values()]
        elif blocks:
            divergences = self.divergences(blocks)
            parts |= divergences
            weighted += [self.mmd_weight * part for part in divergences.values()]
        if self.independence_weight and "z_y" in blocks:
            others = {name: block for name, block in blocks.items() if name != "z_y"}
            found = self.dependences(blocks["z_y"][0], others, prediction)
            parts |= found
            weighted += [self.independence_weight * part for part in found.values()]
        return LossParts(torch.stack(weighted).sum(), parts)
