"""Networks that predict a label from sequences: what MFM is compared with.

A network is chosen by name or by a mapping of its name and settings, as every part: `network: lf_dnn` or
`network: {name: lf_dnn, hidden: 64}`. A name with a dot is the import path of a class of your own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from mfm.models.registry import Registry


class Network(nn.Module, ABC):
    """Interface of a network: `Network(feature_dims, output_dim, aligned, *, settings)`.

    The constructor's arguments are, for every network:

    * `feature_dims`: modality -> D_m, any names, M >= 1; a network that is not defined for this M raises
      `ConfigurationError`.
    * `output_dim`: outputs K of the label, >= 1.
    * `aligned`: whether step t is one moment in all modalities.
    * keyword-only: its settings.

    No output depends on a padded step or on an absent modality.
    """

    head: nn.Sequential

    @abstractmethod
    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Predict the labels of a batch.

        Args:
            features: Modality -> (B, T_m, D_m), of every modality, standardised, left-aligned; padding and absent
                modalities may hold anything, NaN included.
            lengths: Modality -> (B,) int64 real steps.
            present: Modality -> (B,) bool, whether it was observed; where not, its length counts as 0.

        Returns:
            (B, output_dim) raw outputs.
        """

    @property
    def output_bias(self) -> nn.Parameter:
        """(output_dim,): the last layer's bias, which starts at the training labels' median.

        That of the last layer of `head`; a network whose outputs do not come from there says which it is.
        """
        return cast(nn.Linear, self.head[-1]).bias


NETWORKS: Registry[Network] = Registry("network")


def observed_lengths(lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Modality -> (B,) real steps, sorted by modality, 0 where it is absent."""
    return {name: lengths[name].masked_fill(~present[name], 0) for name in sorted(lengths)}
