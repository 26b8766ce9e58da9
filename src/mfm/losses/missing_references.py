"""The objectives of the references for missing modalities (`mfm.models.missing_references`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfm.losses.objective import LossParts, MFMObjective
from mfm.losses.precision import at_least_float32, without_autocast


def code_error(inferred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of codes over samples; unlike `mfm.losses.surrogate.latent_loss` the target is not detached.

    Args:
        inferred: (B, d) codes of a surrogate.
        target: (B, d) codes of the full encoder; has a gradient where the encoder is trained along.
        mask: (B,) bool, which samples count.

    Returns:
        Scalar, at least float32; 0, with zero gradients, where none counts.
    """
    with without_autocast(inferred):
        off = ~mask[:, None]
        error = at_least_float32(inferred).masked_fill(off, 0.0) - at_least_float32(target).masked_fill(off, 0.0)
        return error.square().sum() / (mask.sum().clamp(min=1) * inferred.shape[1])


def authors_surrogate_loss(
    objective: MFMObjective,
    prediction: Tensor,
    target: Tensor,
    target_mask: Tensor,
    reconstruction: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    *,
    subset: tuple[str, ...],
    z_y: Tensor,
    z: Mapping[str, Tensor],
    full_z_y: Tensor,
    full_z: Mapping[str, Tensor],
) -> LossParts:
    """What one surrogate pass costs in the authors' code (Tsai et al., ICLR 2019), for any subset of modalities.

        ||Z_y - Z~_y||^2 + sum_{i missing} ||Z_ai - Z~_ai||^2 + w_Y c_Y(Y, Y~) + sum_i lda_i c_Xi(X_i, X~_i)

    with the weights and costs of the model's own objective and squared norms as means over dimensions. The authors'
    reconstruction loss of a missing visual modality is lost in a typing slip; here every modality has its own.

    Args:
        objective: The model's objective, for task, costs and weights.
        prediction: (B, K) from the inferred codes; (B, 0) for a model without head.
        target: As in `MFMObjective.forward`.
        target_mask: As in `MFMObjective.forward`.
        reconstruction: Modality -> (B, T_m, D_m) from the inferred codes.
        features: Modality -> (B, T_m, D_m), normalised.
        lengths: Modality -> (B,) real steps, 0 where absent, for every modality of the model.
        subset: The modalities that the surrogates were shown. Samples without one of them do not count.
        z_y: (B, z_y) inferred.
        z: Modality -> (B, z_i); inferred for those outside the subset.
        full_z_y: (B, z_y) of the full encoder; a target for samples with every modality.
        full_z: Modality -> (B, z_i) of the full encoder.

    Returns:
        The weighted total and the unweighted parts `latent`, `prediction` and `reconstruction/<modality>`.
    """
    there = {name: own > 0 for name, own in lengths.items()}
    shown = torch.stack([there[name] for name in subset]).all(dim=0)
    complete = torch.stack(list(there.values())).all(dim=0)
    latent = code_error(z_y, full_z_y, complete)
    for name in sorted(z):
        if name not in subset:
            latent = latent + code_error(z[name], full_z[name], shown & there[name])
    counted = shown.reshape(-1, *[1] * (target_mask.ndim - 1))
    parts, weighted = objective.costs(
        prediction,
        target,
        target_mask & counted,
        reconstruction,
        features,
        lengths,
        {name: flag & shown for name, flag in there.items()},
        modalities=sorted(z),
    )
    return LossParts(latent + torch.stack(weighted).sum(), {"latent": latent, **parts})
