"""Standardisation with statistics of the training split, kept with the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError, nearest
from mfm.models.masking import step_mask
from mfm.models.per_modality import PerModality


class _Statistics(nn.Module):
    """Mean and standard deviation of one modality's features."""

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("limit", torch.tensor(torch.inf))


class Normalizer(nn.Module):
    """(x - mean) / std per feature, with statistics that live in the checkpoint; the identity until they are set.

    Args:
        feature_dims: Modality -> D_m.
        clip: Once there are statistics, standardised values are clipped to [-clip, clip]: a feature that hardly
            moved in training and does elsewhere would otherwise swamp every other. None does not clip.

    Raises:
        ConfigurationError: `clip` is not positive.
    """

    def __init__(self, feature_dims: Mapping[str, int], clip: float | None = None) -> None:
        super().__init__()
        if clip is not None and not clip > 0:
            raise ConfigurationError(
                f"the clipping of features is {clip}; it must be a number of deviations > 0, or null"
            )
        self.clip = clip
        self.statistics = PerModality({name: _Statistics(dim) for name, dim in feature_dims.items()})

    def set_statistics(self, mean: Mapping[str, Tensor], std: Mapping[str, Tensor]) -> None:
        """Take over the statistics of the training split.

        Args:
            mean: Modality -> (D_m,) in the file's units, for every modality.
            std: Modality -> (D_m,). Where it is 0 the feature is constant; it is centred and not scaled.

        Raises:
            ConfigurationError: A modality is unknown or missing, a shape is wrong, a value is not finite or negative.
        """
        for what, values in (("mean", mean), ("standard deviation", std)):
            for name in values:
                self._of(name)
            for name, own in self.statistics.items():
                if name not in values:
                    raise ConfigurationError(f"no {what} was given for modality {name!r}; give one for each modality")
                if values[name].shape != own.mean.shape:
                    raise ConfigurationError(
                        f"the {what} of modality {name!r} has shape {tuple(values[name].shape)}, but its features "
                        f"have {own.mean.shape[0]} dimensions; take statistics of the same features"
                    )
                if not bool(torch.isfinite(values[name]).all()) or (values is std and bool((values[name] < 0).any())):
                    raise ConfigurationError(
                        f"the {what} of modality {name!r} has a value that is negative or not finite; "
                        "leave such values out of the statistics"
                    )
        for name, own in self.statistics.items():
            own.mean.copy_(mean[name])
            own.std.copy_(torch.where(std[name] > 0, std[name], torch.ones_like(std[name])))
            own.limit.fill_(torch.inf if self.clip is None else self.clip)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Standardise a batch.

        Args:
            features: Modality -> (B, T_m, D_m) in the file's units; NaN and infinities allowed.
            lengths: Modality -> (B,) real steps.

        Returns:
            Modality -> (B, T_m, D_m), float32 whatever autocast says and clipped; 0, the training mean, where
            the file holds no finite value, and in padded steps.
        """
        standardised = {}
        for name, x in features.items():
            own = self._of(name)
            self._check_width(name, x)
            scaled = (x.to(own.mean.dtype) - own.mean) / own.std
            usable = torch.isfinite(scaled) & step_mask(lengths[name], x.shape[1])[..., None]
            standardised[name] = scaled.masked_fill(~usable, 0.0).clamp(-own.limit, own.limit)
        return standardised

    def inverse(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn standardised features (..., D_m), such as reconstructions, back into the file's units, float32."""
        restored = {}
        for name, x in features.items():
            own = self._of(name)
            self._check_width(name, x)
            restored[name] = x.to(own.mean.dtype) * own.std + own.mean
        return restored

    def _of(self, name: str) -> _Statistics:
        if name not in self.statistics:
            raise ConfigurationError(f"no statistics of modality {name!r}: {nearest(name, self.statistics)}")
        return self.statistics[name]

    def _check_width(self, name: str, x: Tensor) -> None:
        width = self._of(name).mean.shape[0]
        if x.shape[-1] != width:
            raise ConfigurationError(
                f"modality {name!r} has {x.shape[-1]} features a step, but the model was built for {width}; "
                "give the features that it was trained on"
            )
