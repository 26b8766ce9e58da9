"""The objective of surrogate inference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfm.losses.objective import LossParts, MFMObjective
from mfm.losses.precision import at_least_float32, without_autocast
from mfm.losses.prediction import prediction_loss
from mfm.losses.reconstruction import reconstruction_loss


def latent_loss(inferred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of codes over the samples that have a target.

    Args:
        inferred: (B, d) codes of the surrogate.
        target: (B, d) codes of the full encoder; no gradient reaches them.
        mask: (B,) bool, which samples count; what the others hold, NaN included, has no influence.

    Returns:
        Scalar, at least float32; 0, with zero gradients, where none counts.
    """
    with without_autocast(inferred):
        error = at_least_float32(inferred) - at_least_float32(target.detach()).masked_fill(~mask[:, None], 0.0)
        error = error.masked_fill(~mask[:, None], 0.0)
        return error.square().sum() / (mask.sum().clamp(min=1) * inferred.shape[1])


class SurrogateObjective:
    """What a pass of surrogate inference costs (the paper's surrogate losses, for any subset of modalities).

        ||Z_y - Z~_y||^2 + sum_i ||Z_ai - Z~_ai||^2 + w_Y c_Y(Y, Y~) + sum_i lda_i c_Xi(X_i, X~_i)

    with ~ for what the surrogate infers and what head and decoders make of it, Z the full encoder's codes, detached,
    squared norms as means over dimensions, and all other weights and costs those of the model's own objective.
    Z_y has a target where the sample has every modality, Z_ai where modality i is there and was hidden from the
    surrogate; every modality that is there is reconstructed, hidden or not. Parts, all unweighted:

    * `surrogate/latent`;
    * `surrogate/prediction`; missing from a model without head;
    * `surrogate/reconstruction/<modality>`.

    The authors' code differs in that its targets are not detached.

    Args:
        objective: The model's objective, for task, costs and weights.
    """

    def __init__(self, objective: MFMObjective) -> None:
        self.objective = objective

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        target_mask: Tensor,
        reconstruction: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
        z_y: Tensor,
        z: Mapping[str, Tensor],
        full_z_y: Tensor,
        full_z: Mapping[str, Tensor],
    ) -> LossParts:
        """Compute the cost of a pass.

        Args:
            prediction: (B, K) from the inferred codes; (B, 0) for a model without head.
            target: As in `MFMObjective.forward`.
            target_mask: As in `MFMObjective.forward`.
            reconstruction: Modality -> (B, T_m, D_m) from the inferred codes.
            features: Modality -> (B, T_m, D_m) that was to be reconstructed.
            lengths: Modality -> (B,) real steps.
            present: Modality -> (B,) bool, for every modality of the model: what there is.
            observed: Modality -> (B,) bool, likewise: what the surrogate was shown, some of `present`.
            z_y: (B, z_y) inferred.
            z: Modality -> (B, z_i) inferred, for every modality of the model.
            full_z_y: (B, z_y) the full encoder's.
            full_z: Modality -> (B, z_i) the full encoder's.

        Returns:
            The weighted total and the unweighted parts.
        """
        own = self.objective
        complete = torch.stack(list(present.values())).all(dim=0)
        latent = [latent_loss(z_y, full_z_y, complete)]
        latent += [latent_loss(z[name], full_z[name], present[name] & ~observed[name]) for name in sorted(z)]
        parts = {"surrogate/latent": torch.stack(latent).sum()}
        weighted = [parts["surrogate/latent"]]
        if prediction.shape[1]:
            part = prediction_loss(prediction, target, target_mask, task=own.task, loss=own.prediction_loss)
            parts["surrogate/prediction"] = part
            weighted.append(own.prediction_weight * part)
        weights = own._reconstruction_weights(list(z))
        for name in sorted(reconstruction):
            real = lengths[name].masked_fill(~present[name], 0)
            part = reconstruction_loss(reconstruction[name], features[name], real, loss=own.reconstruction_loss)
            parts[f"surrogate/reconstruction/{name}"] = part
            weighted.append(weights[name] * part)
        return LossParts(torch.stack(weighted).sum(), parts)
