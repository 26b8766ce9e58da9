"""The Multimodal Factorization Model as a LightningModule."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mfm.corpora import CORPORA
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.losses.independence import Independence
from mfm.losses.objective import LossParts, MFMObjective
from mfm.losses.surrogate import SurrogateObjective
from mfm.models.backend import Backend
from mfm.models.code_noise import CodeNoise
from mfm.models.mfm import MFM, Codes, MFMOutput
from mfm.models.subsets import SubsetDistribution
from mfm.models.surrogate import (
    Surrogate,
    generate,
    infer,
    infer_codes,
    observed_modalities,
    surrogate_codes,
    surrogate_for,
)
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.initialisation import load_parts
from mfm.modules.optimisation import decay_groups

_Setting = TypeVar("_Setting")
_STANDARD = frozenset(name for corpus in CORPORA.values() for file in corpus.files for name in file.dims)


def for_modalities(value: _Setting, used: Collection[str]) -> _Setting:
    """Drop entries for standard modalities that are not in use, so that one configuration serves any subset.

    Only the names that published files use (`text`, `audio`, `vision`, `video`) are dropped; any other unknown name
    stays and is refused by the model, as a typo should be.
    """
    if not isinstance(value, dict):
        return value
    kept = {key: for_modalities(item, used) for key, item in value.items() if key in used or key not in _STANDARD}
    return kept  # type: ignore[return-value]  # a dict of the same kind


def code_dim(network: nn.Module) -> int:
    """Size of the codes that a factor network reads."""
    return cast(nn.Linear, cast(nn.Sequential, network)[0]).in_features


class MFMModule(AffectModule):
    """Multimodal Factorization Model (Tsai et al., ICLR 2019, arXiv 1806.06176).

    A multimodal discriminative factor F_y predicts the label; one generative factor F_i per modality joins it in
    rebuilding that modality. See `mfm.models.mfm.MFM` for the equations.

    A size or weight given as one number holds for every modality; as a mapping, it names modalities
    (key `default` for the rest): `z: {text: 64, default: 16}`.

    Args:
        z_y: Width of the latent code Z_y.
        z: Width of the latent codes Z_i.
        f_y: Width of the discriminative factor F_y.
        f: Width of the generative factors F_i.
        encoder: Q(Z_i | X_i): `lstm` (the paper's), `gru`, `transformer`, `ssm` or `mean`, or a mapping with `name` and
            settings (`mfm parts` lists them).
        fusion: Q(Z_y | X_1..M): `mfn` (the paper's), `concat_lstm`, `transformer` or `ssm`, or a mapping as for
            `encoder`.
        decoder: `free_running` (the paper's), `teacher_forced` or `mlp`, or a mapping with `name` and settings.
        dropout_y: Dropout in G_y, [0, 1).
        dropout: Dropout in each G_i, [0, 1).
        dropout_head: Dropout in the head D, [0, 1).
        code_noise: Deviation of Gaussian noise on the codes before G while training, or `learned`, one deviation for
            each dimension; the paper has none. MMD and independence are those of the codes with noise.
        weight_prediction: Weight of the prediction loss.
        weight_reconstruction: Weight of each modality's reconstruction loss (lambda_i).
        weight_mmd: Weight of MMD(Q(Z), P(Z)) (lambda).
        independence: What tells how far Z_y is from independent of each Z_i: `nocco`, `hsic` or `discriminator`; see
            `mfm.losses.independence`.
        weight_independence: Weight of that dependence, which keeps the label out of the Z_i and their content out of
            Z_y; the paper has none. 1 together with `weight_mmd: 10` and `code_noise: learned` separates factors
            (`factors.yaml`).
        weight_bottleneck: Weight of KL(Q(Z_y | X) || P(Z_y)) in nats, which keeps what belongs to one modality out of a
            Z_y that is wider than it need be; needs `code_noise`, and the paper has none.
        kernel: Kernel of the MMD: `rbf` (several scales), `imq`, or `original` (the authors', nearly flat).
        mmd_on: MMD on the `joint` Z, as the paper's objective says, or on its `marginals`, as the authors' code does.
        unbiased: Unbiased (U-statistic) instead of biased (V-statistic) estimate of the MMD.
        prediction_loss: Regression: `l1` (the paper's and the default), `mse` or `huber`; classes have cross-entropy.
        reconstruction_loss: `mse` (the paper's) or `l1`.
        surrogate: Inference from whatever was observed, for samples that lack a modality: trained `joint`ly with the
            model, or `posthoc` on the frozen model of `init_from`; null has none. Samples that have every modality
            never go through it, and the model trains exactly as without.
        surrogate_subsets: What it is shown while training: `uniform` over all subsets, `per_size`, `empirical` (the
            batch's own presence patterns), or weights: `{text+audio: 2, text: 1}`.
        surrogate_weight: Weight of its loss.
        surrogate_encoder: Its encoders: names and settings as for `encoder`.
        surrogate_width: Width of its encoders' outputs.
        surrogate_hidden: Width of its fusion.
        surrogate_dropout: Dropout in its fusion, [0, 1).
        surrogate_weight_decay: Its weight decay; null has the model's. The more, the nearer it stays to the model's own
            inference, which was not made to fit the training labels without a modality.
        init_from: Checkpoint of the trained model that `surrogate: posthoc` starts from; needed for training only.
        backend: What computes the recurrences: `auto`, `fused` (gradients written by hand) or `reference`; the numbers
            are the same up to rounding. See `mfm.models.backend`.
        **kwargs: Optimisation and what the data decides; see `AffectModule`.
    """

    def __init__(
        self,
        z_y: int = 32,
        z: int | dict[str, int] = 32,
        f_y: int = 32,
        f: int | dict[str, int] = 32,
        encoder: str | dict[str, Any] = "lstm",
        fusion: str | dict[str, Any] = "mfn",
        decoder: str | dict[str, Any] = "free_running",
        dropout_y: float = 0.0,
        dropout: float | dict[str, float] = 0.0,
        dropout_head: float = 0.0,
        code_noise: CodeNoise = 0.0,
        weight_prediction: float = 1.0,
        weight_reconstruction: float | dict[str, float] = 1.0,
        weight_mmd: float = 1.0,
        independence: Independence = "nocco",
        weight_independence: float = 0.0,
        weight_bottleneck: float = 0.0,
        kernel: str = "rbf",
        mmd_on: Literal["joint", "marginals"] = "joint",
        unbiased: bool = False,
        prediction_loss: str | None = None,
        reconstruction_loss: str = "mse",
        surrogate: Literal["joint", "posthoc"] | None = None,
        surrogate_subsets: str | dict[str, float] = "uniform",
        surrogate_weight: float = 1.0,
        surrogate_encoder: str | dict[str, Any] = "lstm",
        surrogate_width: int | dict[str, int] = 64,
        surrogate_hidden: int = 128,
        surrogate_dropout: float = 0.0,
        surrogate_weight_decay: float | None = None,
        init_from: str | None = None,
        backend: Backend = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        used = self.feature_dims
        self.model = MFM(
            used,
            self.corpus.output_dim,
            z_y=z_y,
            z=for_modalities(z, used),
            f_y=f_y,
            f=for_modalities(f, used),
            encoder=for_modalities(encoder, used),
            fusion=for_modalities(fusion, used),
            decoder=for_modalities(decoder, used),
            dropout_y=dropout_y,
            dropout=for_modalities(dropout, used),
            dropout_head=dropout_head,
            code_noise=code_noise,
            aligned=self.aligned,
            backend=backend,
        )
        self.objective = MFMObjective(
            self.corpus.task,
            modalities=sorted(used),
            prediction=weight_prediction,
            reconstruction=for_modalities(weight_reconstruction, used),
            mmd=weight_mmd,
            independence=weight_independence,
            independence_measure=independence,
            bottleneck=weight_bottleneck,
            code_dims=(code_dim(self.model.factor_y), {i: code_dim(one) for i, one in self.model.factors.items()}),
            kernel=kernel,
            mmd_on=mmd_on,
            unbiased=unbiased,
            prediction_loss=prediction_loss,
            reconstruction_loss=reconstruction_loss,
        )
        if weight_bottleneck and not self.model.noise_y.deviation:
            raise ConfigurationError(
                "weight_bottleneck needs noise on the codes, for without it Z_y has infinitely many nats: add "
                "--model.code_noise learned"
            )
        self.surrogate_mode, self.init_from = surrogate, init_from
        self.surrogate: Surrogate | None = None
        _check_surrogate(surrogate, surrogate_weight, surrogate_weight_decay, init_from)
        self.surrogate_weight_decay = self.weight_decay if surrogate_weight_decay is None else surrogate_weight_decay
        if surrogate is not None:
            self.subsets = SubsetDistribution(surrogate_subsets, used)
            self.surrogate_weight = surrogate_weight
            self.surrogate_objective = SurrogateObjective(self.objective)
            with torch.random.fork_rng([]):
                self.surrogate = surrogate_for(
                    self.model,
                    encoder=for_modalities(surrogate_encoder, used),
                    width=for_modalities(surrogate_width, used),
                    hidden=surrogate_hidden,
                    dropout=surrogate_dropout,
                )
        if surrogate == "posthoc":
            self.model.requires_grad_(False)
            self.objective.requires_grad_(False)

    # ------------------------------------------------------------------ fitting
    def on_fit_start(self) -> None:
        """As `AffectModule`; a frozen model comes with the statistics that it was trained with."""
        if self.init_from is None:
            super().on_fit_start()
        elif not self._resumed:
            load_parts(self, self.init_from, ("model", "normalizer"))

    @property
    def output_bias(self) -> Tensor | None:
        """The head's last bias."""
        return None if self.model.head is None else cast(nn.Linear, self.model.head[-1]).bias

    def train(self, mode: bool = True) -> MFMModule:
        """As `nn.Module`, but a frozen model stays without dropout and noise: it is a target."""
        super().train(mode)
        if self.surrogate_mode == "posthoc":
            self.model.eval()
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As `AffectModule`, the surrogate's weights with a decay of their own."""
        if self.surrogate is None:
            return super().parameter_groups()
        own = decay_groups(self.surrogate, self.surrogate_weight_decay)
        return decay_groups(self.model, self.weight_decay) + own

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning, but the surrogate's gradients are no part of the model's norm."""
        if self.surrogate_mode != "joint" or not gradient_clip_val:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        assert self.surrogate is not None
        clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
        clip([*self.model.parameters(), *self.objective.parameters()], gradient_clip_val)
        clip(self.surrogate.parameters(), gradient_clip_val)

    def selection_metric(self) -> tuple[str, Literal["min", "max"]]:
        """The corpus' own; the loss after freezing, for the metric with all modalities does not move any more."""
        return ("val/loss", "min") if self.surrogate_mode == "posthoc" else super().selection_metric()

    # ---------------------------------------------------------------- inference
    def forward(self, batch: AffectBatch) -> tuple[MFMOutput, dict[str, Tensor]]:
        """Run the model on a batch in the file's units.

        While training, the model alone; otherwise what is missing from a sample is inferred by the surrogate, if any.

        Returns:
            The model's output (reconstructions in normalised units) and the normalised features it saw.
        """
        features = self.normalizer(batch.features, batch.lengths)
        surrogate = None if self.training else self.surrogate
        return infer(self.model, surrogate, features, batch.lengths, batch.present), features

    def infer_codes(self, batch: AffectBatch, *, surrogate: bool = True) -> Codes:
        """The codes of a batch in the file's units.

        Args:
            batch: The batch.
            surrogate: Whether the surrogate, if any, infers what is missing; otherwise the model as it is does.
        """
        features = self.normalizer(batch.features, batch.lengths)
        network = self.surrogate if surrogate else None
        return infer_codes(self.model, network, features, batch.lengths, batch.present)

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim), without decoding anything; arguments as in `infer_codes`."""
        if self.surrogate is None or not surrogate:
            return self.model.infer_label(self.normalizer(batch.features, batch.lengths), batch.lengths, batch.present)
        return self.model.predict_from(self.model.factorize(self.infer_codes(batch, surrogate=surrogate)))

    def step(self, batch: AffectBatch) -> StepOutput:
        """Objective and prediction for one batch."""
        output, features = self(batch)
        log_variance = self.model.noise_y.log_variance(output.codes.z_y)
        parts = self.objective(
            output.prediction,
            batch.target,
            batch.target_mask,
            output.reconstruction,
            features,
            batch.lengths,
            batch.present,
            output.drawn.z_y,
            output.drawn.z,
            None if log_variance is None else (output.codes.z_y, log_variance),
        )
        # where evaluation takes modalities away there is no full encoder's code to compare with
        if self.surrogate is None or (not self.training and self._data_option("missing", [])):
            return StepOutput(parts.total, parts.parts, output.prediction)
        added = self._surrogate_loss(self.surrogate, batch, features, output)
        return StepOutput(
            parts.total + self.surrogate_weight * added.total, {**parts.parts, **added.parts}, output.prediction
        )

    def _surrogate_loss(
        self, surrogate: Surrogate, batch: AffectBatch, features: dict[str, Tensor], full: MFMOutput
    ) -> LossParts:
        """One pass of surrogate inference on subsets drawn for the batch; it teaches the surrogate alone."""
        present = observed_modalities(self.model, batch.lengths, batch.present)
        with self._own_draws(), _frozen(self.model):
            observed = self.subsets.draw(present)
            own = self.model.encode(features, batch.lengths, observed)
            codes = surrogate_codes(surrogate, own, features, batch.lengths, observed)
            inferred = generate(self.model, codes, features, batch.lengths)
        return self.surrogate_objective(
            inferred.prediction,
            batch.target,
            batch.target_mask,
            inferred.reconstruction,
            features,
            batch.lengths,
            present,
            observed,
            codes.z_y,
            codes.z,
            full.codes.z_y,
            full.codes.z,
        )

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Draws that leave the global random state as it was, so that the model trains as it would without them.

        They depend on seed, step and process alone: a run that is killed and goes on makes the same ones.
        """
        device = self.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed((torch.initial_seed() * 1_000_003 + self.global_step * 1_009 + self.global_rank) % 2**63)
            yield

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions, codes and factors of one batch; nothing is decoded."""
        codes = self.infer_codes(batch)
        factors = self.model.factorize(codes)
        return Prediction(
            batch.ids,
            self.model.predict_from(factors).float(),
            batch.target,
            batch.target_mask,
            {"y": codes.z_y.float(), **{name: code.float() for name, code in codes.z.items()}},
            {"y": factors.f_y.float(), **{name: factor.float() for name, factor in factors.f.items()}},
        )


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Gradients pass through what the model computes here, and none of its parameters gets any."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _check_surrogate(mode: str | None, weight: float, decay: float | None, init_from: str | None) -> None:
    if mode not in (None, "joint", "posthoc"):
        raise ConfigurationError(f"--model.surrogate is {mode!r}: {nearest(str(mode), ['joint', 'posthoc'])}")
    if isinstance(weight, bool) or not 0 < weight < float("inf"):
        raise ConfigurationError(f"--model.surrogate_weight is {weight!r}, but must be a number > 0")
    if decay is not None and (isinstance(decay, bool) or not 0 <= decay < float("inf")):
        raise ConfigurationError(f"--model.surrogate_weight_decay is {decay!r}, but must be a number >= 0, or null")
    if mode == "posthoc" and init_from is None:
        raise ConfigurationError(
            "--model.surrogate posthoc trains on a frozen model: give its checkpoint with --model.init_from"
        )
    if mode != "posthoc" and init_from is not None:
        raise ConfigurationError(
            "--model.init_from is the frozen model of --model.surrogate posthoc; set that, or drop --model.init_from"
        )
