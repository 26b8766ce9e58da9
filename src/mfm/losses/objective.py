"""The objective of the Multimodal Factorization Model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError, nearest
from mfm.losses.discriminator import DiscriminatorDependence
from mfm.losses.independence import Independence, check_independence, dependences
from mfm.losses.kl import gaussian_kl
from mfm.losses.mmd import check_kernel, mmd
from mfm.losses.precision import at_least_float32
from mfm.losses.prediction import choose_prediction_loss, prediction_loss
from mfm.losses.reconstruction import RECONSTRUCTION_LOSSES, reconstruction_loss

MMDOn = Literal["joint", "marginals"]


class LossParts(NamedTuple):
    """The objective's value: `total`, the weighted sum, and its unweighted `parts` by name, all scalars."""

    total: Tensor
    parts: dict[str, Tensor]


class MFMObjective(nn.Module):
    """Relaxed joint Wasserstein distance (the paper's objective).

        c_Y(Y, Y^) + sum_i lda_i c_Xi(X_i, X^_i) + lda_mmd MMD(Q_Z, N(0, I))
            + lda_ind sum_i I(Z_y, Z_ai) + lda_rate KL(Q(Z_y | X) || N(0, I))

    The last two terms are additions to the paper's objective, off by default.

    Padded steps, absent modalities and missing labels are in no part. Parts, all unweighted:

    * `prediction`; missing from a model without head.
    * `reconstruction/<modality>` for every modality reconstructed.
    * `mmd` on the joint Z = [Z_y; Z_ai of all modalities, sorted], as in the paper: it also punishes dependence
      between the blocks. The block of an absent modality is a fresh draw from the prior, for that is its Q; it
      neither pulls nor is pulled.
    * or, on the marginals as in the authors' code, `mmd/z_y` and `mmd/<modality>`, over the samples that have them.
    * `independence/<modality>`, where its weight is not 0: dependence of Z_y and Z_ai (`mfm.losses.independence`) over
      the samples that have the modality; 0 where fewer than four of the batch do. MMD alone leaves the label in Z_ai,
      for neither its marginals nor its wide kernel on the joint Z see that well.
    * `bottleneck`, where its weight is not 0: the rate of Z_y in nats, of codes with Gaussian noise (variational
      information bottleneck; Alemi et al., ICLR 2017). What one modality has for itself costs nothing in its Z_ai and
      its nats in Z_y, which therefore stays free of it however wide it is.

    Draws from the prior, as many as the batch is large, come from the global random state of the codes' device.

    Args:
        task: `regression`, `binary`, `multiclass` or `multilabel`.
        prediction: Weight of the prediction loss.
        reconstruction: Weights lda_i, one for all or per modality (`default` stands for those not named).
        mmd: Weight lda_mmd.
        independence: Weight lda_ind; 0, as in the paper, leaves the term out.
        independence_measure: What I is: `nocco`, `hsic` or `discriminator`.
        bottleneck: Weight lda_rate; 0 leaves the term out.
        code_dims: Size of Z_y, and name -> size of each Z_ai, which the measure `discriminator` needs.
        kernel: MMD kernel: `rbf`, `imq` or `original` (see `mfm.losses.mmd.KERNELS`).
        unbiased: Whether MMD is estimated without bias.
        mmd_on: `joint` or `marginals`.
        prediction_loss: Name of a loss of the task: `l1` (default), `mse`, `huber` for regression.
        reconstruction_loss: `mse` (default) or `l1`.
        modalities: Names that `reconstruction` may use, to find mistakes at once; otherwise the first batch tells.

    Raises:
        ConfigurationError: An unknown name (the nearest is named), or a weight that is negative or not finite.
    """

    def __init__(
        self,
        task: str,
        *,
        prediction: float = 1.0,
        reconstruction: float | Mapping[str, float] = 1.0,
        mmd: float = 1.0,
        independence: float = 0.0,
        independence_measure: Independence = "nocco",
        bottleneck: float = 0.0,
        code_dims: tuple[int, Mapping[str, int]] | None = None,
        kernel: str = "rbf",
        unbiased: bool = False,
        mmd_on: MMDOn = "joint",
        prediction_loss: str | None = None,
        reconstruction_loss: str = "mse",
        modalities: list[str] | None = None,
    ) -> None:
        super().__init__()
        choose_prediction_loss(task, prediction_loss)
        check_kernel(kernel)
        if mmd_on not in get_args(MMDOn):
            raise ConfigurationError(f"unknown mmd_on {mmd_on!r}: {nearest(mmd_on, get_args(MMDOn))}")
        if reconstruction_loss not in RECONSTRUCTION_LOSSES:
            known = nearest(reconstruction_loss, RECONSTRUCTION_LOSSES)
            raise ConfigurationError(f"unknown reconstruction loss {reconstruction_loss!r}: {known}")
        check_independence(independence_measure)
        self.task = task
        self.independence_measure = independence_measure
        self.prediction_weight = _weight("prediction", prediction)
        self.mmd_weight = _weight("mmd", mmd)
        self.independence_weight = _weight("independence", independence)
        self.bottleneck_weight = _weight("bottleneck", bottleneck)
        self.discriminator: DiscriminatorDependence | None = None
        if independence_measure == "discriminator" and self.independence_weight:
            if code_dims is None:
                raise ConfigurationError("the independence 'discriminator' needs code_dims, the sizes of the codes")
            self.discriminator = DiscriminatorDependence(*code_dims)
        self.reconstruction_weights: float | dict[str, float] = (
            {name: _weight(f"reconstruction of {name!r}", value) for name, value in reconstruction.items()}
            if isinstance(reconstruction, Mapping)
            else _weight("reconstruction", reconstruction)
        )
        self.kernel = kernel
        self.unbiased = unbiased
        self.mmd_on = mmd_on
        self.prediction_loss = prediction_loss
        self.reconstruction_loss = reconstruction_loss
        if modalities is not None:
            self._reconstruction_weights(modalities)

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        target_mask: Tensor,
        reconstruction: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        z_y: Tensor,
        z: Mapping[str, Tensor],
        posterior_y: tuple[Tensor, Tensor] | None = None,
    ) -> LossParts:
        """Compute the objective of a batch.

        Args:
            prediction: (B, K), as `MFMOutput.prediction`; (B, 0) for a model without head.
            target: See `mfm.losses.prediction.prediction_loss`; not looked at for a model without head.
            target_mask: Same shape as `target`.
            reconstruction: Modality -> (B, T_m, D_m).
            features: Modality -> (B, T_m, D_m) that was to be reconstructed, on the model's scale.
            lengths: Modality -> (B,) real steps.
            present: Modality -> (B,) bool.
            z_y: (B, z_y) codes Z_y.
            z: Modality -> (B, z_i) codes Z_ai, of every modality of the model; one that `present` does not have is
                absent.
            posterior_y: Mean and log variance, (B, z_y) each, of the Gaussian Q(Z_y | X); for the bottleneck only.

        Returns:
            The weighted total and the unweighted parts.

        Raises:
            ConfigurationError: A bottleneck without `posterior_y`.
        """
        parts, weighted = self.costs(
            prediction, target, target_mask, reconstruction, features, lengths, present, modalities=list(z)
        )
        known = {
            name: present[name] & (lengths[name] > 0)
            if name in present
            else torch.zeros_like(z_y[:, 0], dtype=torch.bool)
            for name in sorted(z)
        }
        blocks = _blocks(z_y, z, known)
        divergences = self.divergences(blocks)
        parts |= divergences
        weighted += [self.mmd_weight * part for part in divergences.values()]
        if self.independence_weight:
            codes = {name: (code, known[name]) for name, code in z.items()}
            found = self.dependences(z_y, codes, prediction)
            parts |= found
            weighted += [self.independence_weight * part for part in found.values()]
        if self.bottleneck_weight:
            if posterior_y is None:
                raise ConfigurationError("the bottleneck needs posterior_y, mean and log variance of Z_y's posterior")
            parts["bottleneck"] = gaussian_kl(*posterior_y, known=blocks["z_y"][1])
            weighted.append(self.bottleneck_weight * parts["bottleneck"])
        return LossParts(torch.stack(weighted).sum(), parts)

    def costs(
        self,
        prediction: Tensor,
        target: Tensor,
        target_mask: Tensor,
        reconstruction: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        modalities: list[str],
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """c_Y and every c_Xi: the unweighted parts by name, and the same weighted; see `forward`.

        Args:
            prediction: As in `forward`.
            target: As in `forward`.
            target_mask: As in `forward`.
            reconstruction: As in `forward`.
            features: As in `forward`.
            lengths: As in `forward`.
            present: As in `forward`.
            modalities: Every modality of the model.
        """
        weights = self._reconstruction_weights(modalities)
        parts: dict[str, Tensor] = {}
        weighted: list[Tensor] = []
        if prediction.shape[1]:
            parts["prediction"] = prediction_loss(
                prediction, target, target_mask, task=self.task, loss=self.prediction_loss
            )
            weighted.append(self.prediction_weight * parts["prediction"])
        observed = {name: lengths[name].masked_fill(~present[name], 0) for name in present}
        for name in sorted(reconstruction):
            part = reconstruction_loss(
                reconstruction[name], features[name], observed[name], loss=self.reconstruction_loss
            )
            parts[f"reconstruction/{name}"] = part
            weighted.append(weights[name] * part)
        return parts, weighted

    def dependences(self, z_y: Tensor, z: Mapping[str, tuple[Tensor, Tensor]], prediction: Tensor) -> dict[str, Tensor]:
        """I(Z_y, Z_ai) by the chosen measure, in parts; see `mfm.losses.independence.dependences`."""
        if self.discriminator is not None:
            return self.discriminator(z_y, z)  # type: ignore[no-any-return]
        classes = self.task == "multiclass"
        return dependences(z_y, z, prediction, self.independence_measure, classes=classes)

    def divergences(self, blocks: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """MMD(Q_Z, N(0, I)) of blocks of codes, in parts.

        Args:
            blocks: Name -> codes (B, d) and whether each sample has them, (B,) bool.
        """
        return (self._joint if self.mmd_on == "joint" else self._marginals)(blocks)

    def _joint(self, blocks: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        joint = torch.cat([at_least_float32(code) for code, _ in blocks.values()], dim=1)
        real = torch.cat([mask[:, None].expand_as(code) for code, mask in blocks.values()], dim=1)
        prior, fill = torch.randn_like(joint), torch.randn_like(joint)
        filled = torch.where(real, joint, fill)
        return {"mmd": mmd(filled, prior, kernel=self.kernel, unbiased=self.unbiased)}

    def _marginals(self, blocks: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        return {
            f"mmd/{name}": mmd(code, _draw_like(code), kernel=self.kernel, unbiased=self.unbiased, weights=mask)
            for name, (code, mask) in blocks.items()
        }

    def _reconstruction_weights(self, modalities: list[str]) -> dict[str, float]:
        given = self.reconstruction_weights
        if not isinstance(given, dict):
            return dict.fromkeys(modalities, given)
        for name in given:
            if name not in modalities and name != "default":
                raise ConfigurationError(
                    f"the weights of reconstruction name an unknown modality {name!r}: {nearest(name, modalities)}"
                )
        weights = {name: given.get(name, given.get("default")) for name in modalities}
        for name, weight in weights.items():
            if weight is None:
                raise ConfigurationError(
                    f"the weights of reconstruction have none for modality {name!r}; add it, or the key 'default'"
                )
        return {name: weight for name, weight in weights.items() if weight is not None}


def _blocks(z_y: Tensor, z: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> codes (B, d) and whether each sample has them (B,): Z_y first, then each Z_ai, sorted."""
    anything = torch.stack(list(known.values())).any(dim=0)
    return {"z_y": (z_y, anything), **{name: (z[name], mask) for name, mask in known.items()}}


def _draw_like(code: Tensor) -> Tensor:
    return torch.randn_like(at_least_float32(code))


def _weight(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"the weight of {name} is {value!r}, but must be a number >= 0")
    return float(value)
