"""What surrogate inference is compared with where modalities are missing: one network for every subset.

The paper (Tsai et al., ICLR 2019, arXiv 1806.06176, experiments with missing modalities) compares its surrogates with
a purely discriminative and a purely generative model; its authors' own surrogates are the third reference. All three
read an LSTM over the concatenation of what was observed, on one clock (`mfm.models.alignment`), and have separate
networks for every subset of modalities: 2^M - 1 predictors, or up to M 2^(M-1) networks for what is missing.

Arguments `features`, `lengths` and `present` of a batch are those of `MFM.encode` everywhere: a modality that is not
there, in the batch or in a sample, is not looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.errors import ConfigurationError
from mfm.models.decoders import FreeRunningDecoder
from mfm.models.fusion import ConcatLSTM, longest
from mfm.models.masking import zero_padding
from mfm.models.mfm import Codes, _head, observed_inputs
from mfm.models.per_modality import PerModality
from mfm.models.registry import Rate, Size, check_value
from mfm.models.subsets import Subset, all_subsets


class Observed(NamedTuple):
    """What there is of a batch: modality -> features with zeroed padding, and lengths, 0 where absent."""

    features: dict[str, Tensor]
    lengths: dict[str, Tensor]

    def has(self, subset: Subset) -> Tensor:
        """Which samples have all modalities of a subset, (B,) bool."""
        return torch.stack([self.lengths[name] > 0 for name in subset]).all(dim=0)

    def has_exactly(self, subset: Subset) -> Tensor:
        """Which samples have the modalities of a subset and no others, (B,) bool."""
        return torch.stack([(own > 0) == (name in subset) for name, own in self.lengths.items()]).all(dim=0)


class SubsetNetworks(nn.Module):
    """Base of the references: the modalities and the subsets they are observed in.

    Args:
        feature_dims: Modality -> D_i.
        aligned: Whether step t is one moment in all modalities.
        hidden: Width of the LSTMs.
        complete: Whether the set of all modalities is among the subsets.

    Raises:
        ConfigurationError: An impossible size, or one modality where some must be missing.
    """

    def __init__(self, feature_dims: Mapping[str, int], *, aligned: bool, hidden: int, complete: bool) -> None:
        super().__init__()
        check_value("reference_hidden", hidden, Size)
        self.feature_dims = dict(sorted(feature_dims.items()))
        self.aligned, self.hidden = aligned, hidden
        self.subsets = [
            subset for subset in all_subsets(feature_dims) if complete or len(subset) < len(self.feature_dims)
        ]
        if not self.subsets:
            raise ConfigurationError(
                f"{next(iter(self.feature_dims))!r} is the only modality, and nothing can be inferred without it; "
                "use at least two modalities"
            )

    def missing(self, subset: Subset) -> list[str]:
        """The modalities outside a subset."""
        return [name for name in self.feature_dims if name not in subset]

    def observe(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Observed:
        """What there is of a batch, for every modality of the model."""
        return Observed(*observed_inputs(self.feature_dims, features, lengths, present))

    def lstm(self, subset: Subset, code_dim: int) -> ConcatLSTM:
        """An LSTM over the concatenation of a subset's modalities, and a linear map from its last state."""
        dims = {name: self.feature_dims[name] for name in subset}
        return ConcatLSTM(dims, code_dim, self.aligned, hidden=self.hidden)


class SubsetPredictors(SubsetNetworks):
    """Purely discriminative: for every subset of observed modalities an own network from them to the label.

        Y^ = D_S(LSTM_S([X_i for i in S]))      D = Linear - ReLU - Dropout - Linear

    Args:
        feature_dims: Modality -> D_i.
        output_dim: Outputs of a head.
        hidden: Width of the LSTMs.
        width: Width of the heads.
        dropout: Dropout in the heads.
        aligned: Whether step t is one moment in all modalities.

    Raises:
        ConfigurationError: An impossible size.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        *,
        hidden: int = 128,
        width: int = 64,
        dropout: float = 0.0,
        aligned: bool = True,
    ) -> None:
        super().__init__(feature_dims, aligned=aligned, hidden=hidden, complete=True)
        check_value("reference_width", width, Size)
        check_value("reference_dropout", dropout, Rate)
        self.output_dim = output_dim
        self.encoders = nn.ModuleList([self.lstm(subset, width) for subset in self.subsets])
        self.heads = nn.ModuleList([_head(width, output_dim, dropout) for _ in self.subsets])

    def of_subset(self, index: int, observed: Observed) -> Tensor:
        """(B, output_dim) of the network of `subsets[index]`; of meaning for samples that have that subset."""
        prediction: Tensor = self.heads[index](self.encoders[index](*_shown(observed, self.subsets[index])))
        return prediction

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Predict each sample with the network of the modalities it has.

        Returns:
            (B, output_dim); zeros where a sample has none.
        """
        observed = self.observe(features, lengths, present)
        some = next(iter(observed.features.values()))
        prediction = some.new_zeros(some.shape[0], self.output_dim)
        for index, subset in enumerate(self.subsets):
            rows = observed.has_exactly(subset)
            if bool(rows.any()):  # evaluation only: most batches have one subset
                own = self.of_subset(index, observed)
                prediction = torch.where(rows[:, None], own, prediction.to(own.dtype))
        return prediction


class SubsetGenerators(SubsetNetworks):
    """Purely generative: for every subset of observed modalities and every missing one, an own encoder and decoder.

        z_i = LSTM_S,i([X_j for j in S])      X^_i = Dec_S,i(z_i)       Dec: the paper's free-running LSTM

    It knows nothing of labels. What it makes of the label is what a full trained MFM reads from the input that it
    completed: the paper's description leaves this open, and any head of its own would make it discriminative.

    Args:
        feature_dims: Modality -> D_i.
        hidden: Width of the encoding LSTMs.
        code: Size of the z_i, which is also the decoders' width.
        aligned: Whether step t is one moment in all modalities.

    Raises:
        ConfigurationError: An impossible size, or one modality only.
    """

    def __init__(
        self, feature_dims: Mapping[str, int], *, hidden: int = 128, code: int = 64, aligned: bool = True
    ) -> None:
        super().__init__(feature_dims, aligned=aligned, hidden=hidden, complete=False)
        check_value("reference_code", code, Size)
        encoders, decoders = [], []
        for subset in self.subsets:
            missing = self.missing(subset)
            encoders.append(PerModality({name: self.lstm(subset, code) for name in missing}))
            decoders.append(
                PerModality({name: FreeRunningDecoder(0, code, self.feature_dims[name]) for name in missing})
            )
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)

    def of_subset(self, index: int, observed: Observed, steps: Mapping[str, int]) -> dict[str, Tensor]:
        """Generate what is missing from `subsets[index]`.

        Args:
            index: Which subset.
            observed: The batch; only the subset's modalities are looked at.
            steps: Modality -> steps T_m to generate.

        Returns:
            Missing modality -> (B, T_m, D_m), normalised units.
        """
        shown = _shown(observed, self.subsets[index])
        decoders = self.decoders[index]
        generated = {}
        for name, encoder in self.encoders[index].items():  # type: ignore[operator]  # a PerModality
            code = encoder(*shown)
            generated[name] = decoders[name](code.new_zeros(len(code), 0), code, steps[name])  # type: ignore[index]
        return generated

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Observed:
        """Complete a batch: what a sample lacks is generated from what it has.

        A generated modality is as long as the sample's longest observed one, for how long it would have been is not
        known. A sample without anything stays so.

        Returns:
            Modality -> features (B, T, D_m) and lengths, for every modality of the model.
        """
        observed = self.observe(features, lengths, present)
        most = max(x.shape[1] for x in observed.features.values())
        full = {name: F.pad(x, (0, 0, 0, most - x.shape[1])) for name, x in observed.features.items()}
        full_lengths, reach = dict(observed.lengths), longest(observed.lengths)
        for index, subset in enumerate(self.subsets):
            rows = observed.has_exactly(subset)
            if not bool(rows.any()):  # evaluation only, as in `SubsetPredictors`
                continue
            for name, x in self.of_subset(index, observed, dict.fromkeys(full, most)).items():
                own = reach.masked_fill(~rows, 0)
                full[name] = torch.where(rows[:, None, None], zero_padding(x, own), full[name].to(x.dtype))
                full_lengths[name] = torch.where(rows, own, full_lengths[name])
        return Observed(full, full_lengths)


class SubsetSurrogates(SubsetNetworks):
    """The authors' surrogates: for every subset of observed modalities an LSTM for Z_y and one for each missing Z_ai.

        Z~_y = LSTM_S,y([X_j for j in S])      Z~_ai = LSTM_S,i([X_j for j in S])  for i not in S

    The Z_ai of what was observed are the model's own encoders'. The authors' code has the subsets that lack one of
    three modalities; here it is every non-empty proper subset of any number.

    Args:
        feature_dims: Modality -> D_i.
        z_y: Size of Z_y.
        z: Modality -> size of Z_ai.
        hidden: Width of the LSTMs.
        aligned: Whether step t is one moment in all modalities.

    Raises:
        ConfigurationError: An impossible size, or one modality only.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        z_y: int,
        z: Mapping[str, int],
        *,
        hidden: int = 128,
        aligned: bool = True,
    ) -> None:
        super().__init__(feature_dims, aligned=aligned, hidden=hidden, complete=False)
        self.to_z_y = nn.ModuleList([self.lstm(subset, z_y) for subset in self.subsets])
        self.to_z = nn.ModuleList(
            [
                PerModality({name: self.lstm(subset, z[name]) for name in self.missing(subset)})
                for subset in self.subsets
            ]
        )

    def of_subset(self, index: int, codes: Codes, observed: Observed) -> Codes:
        """Codes inferred from `subsets[index]`.

        Args:
            index: Which subset.
            codes: The model's own; those of the observed modalities are kept.
            observed: The batch; only the subset's modalities are looked at.
        """
        shown = _shown(observed, self.subsets[index])
        inferred = {name: network(*shown) for name, network in self.to_z[index].items()}  # type: ignore[operator]
        return Codes(self.to_z_y[index](*shown), {**codes.z, **inferred})

    def forward(
        self,
        codes: Codes,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> Codes:
        """Codes of each sample by the networks of what it has; those of a sample with all modalities stay."""
        observed = self.observe(features, lengths, present)
        z_y, z = codes.z_y, dict(codes.z)
        for index, subset in enumerate(self.subsets):
            rows = observed.has_exactly(subset)[:, None]
            if bool(rows.any()):  # evaluation only, as in `SubsetPredictors`
                own = self.of_subset(index, codes, observed)
                z_y = torch.where(rows, own.z_y, z_y)
                z = {name: torch.where(rows, own.z[name], code) for name, code in z.items()}
        return Codes(z_y, z)


class BestOfSubsets(nn.Module):
    """Every subset's networks as they were when they were best on validation.

    Networks of different subsets share nothing, so that each may be taken from an epoch of its own, as if it had been
    trained alone.

    Args:
        networks: The networks that are trained; copied here, without gradients.
    """

    loss: Tensor

    def __init__(self, networks: SubsetNetworks) -> None:
        super().__init__()
        self.networks = copy.deepcopy(networks).requires_grad_(False)
        self.register_buffer("loss", torch.full((len(networks.subsets),), torch.inf))

    @torch.no_grad()
    def update(self, networks: SubsetNetworks, losses: Tensor) -> None:
        """Take over the networks of those subsets that are not worse than before.

        Args:
            networks: As they are now.
            losses: (number of subsets,) their losses on validation.
        """
        better = losses <= self.loss
        for index, take in enumerate(better.tolist()):
            for own, other in zip(self.networks.children(), networks.children(), strict=True):
                if take:
                    own[index].load_state_dict(other[index].state_dict())  # type: ignore[index]  # lists, by subset
        self.loss.copy_(torch.where(better, losses, self.loss))

    def known(self) -> bool:
        """Whether every subset has been validated."""
        return bool(self.loss.isfinite().all())


def _shown(observed: Observed, subset: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return {name: observed.features[name] for name in subset}, {name: observed.lengths[name] for name in subset}
