"""The paper's ablations and the variational variant as a LightningModule."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.losses.independence import Independence
from mfm.losses.variants import VariantObjective
from mfm.models.code_noise import CodeNoise
from mfm.models.mfm import Codes
from mfm.models.variants import LAYOUTS, SHARED, AblationModel, AblationOutput, Variant
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.initialisation import load_parts
from mfm.modules.mfm import code_dim, for_modalities

Stage = Literal["generate", "discriminate"]


class AblationModule(AffectModule):
    """A rung of the paper's ablation ladder, or MFM as a variational autoencoder (arXiv 1806.06176).

    `M_A`: unimodal encoders fused late, purely discriminative. `M_B`: a joint factor, purely discriminative. `M_C`:
    modality-specific factors only, each for generation and prediction. `M_D`: one joint factor for both. `M_E`: a joint
    discriminative and one shared generative factor. `MFM`: modality-specific generative factors, the full model.
    See `mfm.models.variants.AblationModel` for the equations.

    Sizes, parts and weights are those of `MFMModule`; what a variant does not have is not used.

    Args:
        variant: `M_A`, `M_B`, `M_C`, `M_D`, `M_E` or `MFM`.
        divergence: `mmd` with deterministic encoders (the paper's), or `kl`: encoders give mean and log-variance, codes
            are drawn while training and are the mean at evaluation.
        weight_kl: Weight beta of KL, in nats summed over dimensions.
        z_y: Width of Z_y.
        z: Width of the Z_i.
        z_shared: Width of the one generative code of `M_E`.
        f_y: Width of F_y.
        f: Width of the F_i.
        f_shared: Width of the one generative factor of `M_E`.
        encoder: As in `MFMModule`.
        fusion: As in `MFMModule`; `M_E` has a second one for its generative code.
        decoder: As in `MFMModule`.
        dropout_y: Dropout in G_y, [0, 1).
        dropout: Dropout in each G_i, [0, 1).
        dropout_shared: Dropout in the G of `M_E`'s generative factor, [0, 1).
        dropout_head: Dropout in the head, [0, 1).
        code_noise: As in `MFMModule`; 0 with `divergence: kl`.
        weight_prediction: Weight of the prediction loss.
        weight_reconstruction: Weight of each modality's reconstruction loss.
        weight_mmd: Weight of MMD.
        independence: As in `MFMModule`.
        weight_independence: Weight of the dependence of Z_y and the generative codes, where there are both.
        kernel: Kernel of the MMD.
        mmd_on: `joint` or `marginals`.
        unbiased: Unbiased estimate of the MMD.
        prediction_loss: As in `MFMModule`.
        reconstruction_loss: `mse` or `l1`.
        stage: Train in two stages, as the authors' beta-VAE: `generate`, everything but the head, on sequences alone;
            then `discriminate`, the head alone, on the frozen F_y of `init_from` (all F_i in `M_C`). null trains all at
            once.
        init_from: Checkpoint of the first stage that `stage: discriminate` starts from; needed for training only.
        **kwargs: Optimisation and what the data decides; see `AffectModule`.
    """

    surrogate = None  # what a `FactorModule` infers missing modalities with

    def __init__(
        self,
        variant: Variant = "MFM",
        divergence: Literal["mmd", "kl"] = "mmd",
        weight_kl: float = 1.0,
        z_y: int = 32,
        z: int | dict[str, int] = 32,
        z_shared: int = 32,
        f_y: int = 32,
        f: int | dict[str, int] = 32,
        f_shared: int = 32,
        encoder: str | dict[str, Any] = "lstm",
        fusion: str | dict[str, Any] = "mfn",
        decoder: str | dict[str, Any] = "free_running",
        dropout_y: float = 0.0,
        dropout: float | dict[str, float] = 0.0,
        dropout_shared: float = 0.0,
        dropout_head: float = 0.0,
        code_noise: CodeNoise = 0.0,
        weight_prediction: float = 1.0,
        weight_reconstruction: float | dict[str, float] = 1.0,
        weight_mmd: float = 1.0,
        independence: Independence = "nocco",
        weight_independence: float = 0.0,
        kernel: str = "rbf",
        mmd_on: Literal["joint", "marginals"] = "joint",
        unbiased: bool = False,
        prediction_loss: str | None = None,
        reconstruction_loss: str = "mse",
        stage: Stage | None = None,
        init_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        used = self.feature_dims
        _check_stage(stage, init_from, variant)
        self.stage, self.init_from = stage, init_from
        if divergence not in ("mmd", "kl"):
            raise ConfigurationError(f"unknown divergence {divergence!r}: {nearest(str(divergence), ['mmd', 'kl'])}")
        self.model = AblationModel(
            used,
            0 if stage == "generate" else self.corpus.output_dim,
            variant=variant,
            posterior="gaussian" if divergence == "kl" else "point",
            z_y=z_y,
            z=for_modalities(z, used),
            z_shared=z_shared,
            f_y=f_y,
            f=for_modalities(f, used),
            f_shared=f_shared,
            encoder=for_modalities(encoder, used),
            fusion=for_modalities(fusion, used),
            decoder=for_modalities(decoder, used),
            dropout_y=dropout_y,
            dropout=for_modalities(dropout, used),
            dropout_shared=dropout_shared,
            dropout_head=dropout_head,
            code_noise=code_noise,
            aligned=self.aligned,
        )
        self.objective = VariantObjective(
            self.corpus.task,
            modalities=sorted(used),
            prediction=weight_prediction,
            reconstruction=for_modalities(weight_reconstruction, used),
            mmd=weight_mmd,
            beta=weight_kl,
            independence=weight_independence,
            independence_measure=independence if self.model.layout.joint else "nocco",
            code_dims=_code_dims(self.model),
            kernel=kernel,
            mmd_on=mmd_on,
            unbiased=unbiased,
            prediction_loss=prediction_loss,
            reconstruction_loss=reconstruction_loss,
        )
        if stage == "discriminate":
            for name, part in self.model.named_children():
                part.requires_grad_(name == "head")
            self.objective.requires_grad_(False)

    # ------------------------------------------------------------------ fitting
    def on_fit_start(self) -> None:
        """As `AffectModule`; what was trained in the first stage comes with the statistics that it was trained with."""
        super().on_fit_start()
        if self.init_from is not None and not self._resumed:
            frozen = [f"model.{name}" for name, _ in self.model.named_children() if name != "head"]
            load_parts(self, self.init_from, (*frozen, "normalizer"))

    def train(self, mode: bool = True) -> AblationModule:
        """As `nn.Module`, but frozen parts stay without dropout and without draws of codes."""
        super().train(mode)
        if self.stage == "discriminate":
            self.model.eval()
            if self.model.head is not None:
                self.model.head.train(mode)
        return self

    def _labelled(self) -> bool:
        return self.model.head is not None and super()._labelled()

    @property
    def output_bias(self) -> Tensor | None:
        """The head's last bias."""
        return None if self.model.head is None else cast(nn.Linear, self.model.head[-1]).bias

    def forward(self, batch: AffectBatch) -> tuple[AblationOutput, dict[str, Tensor]]:
        """Run the model on a batch in the file's units.

        Returns:
            The model's output (reconstructions in normalised units) and the normalised features it saw.
        """
        features = self.normalizer(batch.features, batch.lengths)
        return self.model(features, batch.lengths, batch.present), features

    def infer_codes(self, batch: AffectBatch, *, surrogate: bool = True) -> Codes:
        """The codes of a batch in the file's units, means of a Gaussian posterior; there is no surrogate to ask."""
        features = self.normalizer(batch.features, batch.lengths)
        return self.model.encode(features, batch.lengths, batch.present)

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim), without decoding anything; arguments as in `infer_codes`."""
        return self.model.predict_from(self.model.factorize(self.infer_codes(batch)))

    def step(self, batch: AffectBatch) -> StepOutput:
        """Objective and prediction for one batch."""
        if self.stage == "discriminate" and self.training:
            return self._head_alone(batch)
        output, features = self(batch)
        mean, log_variance = output.posterior
        blocks: dict[str, tuple[Tensor, Tensor]] = {}
        spread: dict[str, Tensor] | None = None
        if self.model.layout.generates:
            joint = ["z_y", *([SHARED] if self.model.layout.shared else [])]
            known = _known(batch, self.model.modalities, joint)
            codes = output.drawn if log_variance is None else mean  # KL is of the posterior's mean and variance
            blocks = {name: (code, known[name]) for name, code in _blocks(codes, "z_y").items()}
            spread = None if log_variance is None else _blocks(log_variance, "z_y")
        parts = self.objective.of_blocks(
            output.prediction,
            batch.target,
            batch.target_mask,
            output.reconstruction,
            features,
            batch.lengths,
            batch.present,
            blocks,
            spread,
            modalities=self.model.modalities,
        )
        total = parts.total if self.stage != "discriminate" else self._weighted(parts.parts["prediction"])
        return StepOutput(total, parts.parts, output.prediction)

    def _head_alone(self, batch: AffectBatch) -> StepOutput:
        """The second stage: nothing is decoded, for nothing that decodes is trained."""
        prediction = self.predict_label(batch)
        nothing: dict[str, Tensor] = {}
        parts, _ = self.objective.costs(
            prediction,
            batch.target,
            batch.target_mask,
            nothing,
            nothing,
            nothing,
            nothing,
            modalities=self.model.modalities,
        )
        return StepOutput(self._weighted(parts["prediction"]), parts, prediction)

    def _weighted(self, prediction_loss: Tensor) -> Tensor:
        return self.objective.prediction_weight * prediction_loss

    # ---------------------------------------------------------------- inference
    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions, codes (means of a Gaussian posterior) and factors of one batch; nothing is decoded."""
        codes = self.infer_codes(batch)
        factors = self.model.factorize(codes)
        return Prediction(
            batch.ids,
            self.model.predict_from(factors).float(),
            batch.target,
            batch.target_mask,
            {name: code.float() for name, code in _blocks(codes, "y").items()},
            {name: factor.float() for name, factor in _blocks(Codes(factors.f_y, factors.f), "y").items()},
        )


def _code_dims(model: AblationModel) -> tuple[int, dict[str, int]]:
    """Size of Z_y, and of every other block of codes."""
    networks = dict(model.factors.items())
    if model.factor_shared is not None:
        networks[SHARED] = model.factor_shared
    joint = 0 if model.factor_y is None else code_dim(model.factor_y)
    return joint, {name: code_dim(network) for name, network in networks.items()}


def _check_stage(stage: str | None, init_from: str | None, variant: str) -> None:
    if stage is not None and stage not in get_args(Stage):
        raise ConfigurationError(f"--model.stage is {stage!r}: {nearest(str(stage), get_args(Stage))}")
    if stage is not None and variant in LAYOUTS and not LAYOUTS[variant].generates:
        raise ConfigurationError(f"variant {variant} generates nothing: it has no two stages; drop --model.stage")
    if stage == "discriminate" and init_from is None:
        raise ConfigurationError(
            "--model.stage discriminate trains a head on a frozen model: give its checkpoint with --model.init_from"
        )
    if stage != "discriminate" and init_from is not None:
        raise ConfigurationError(
            "--model.init_from is the frozen model of --model.stage discriminate; set that, or drop --model.init_from"
        )


def _blocks(codes: Codes, joint: str) -> dict[str, Tensor]:
    """Block -> codes: the joint one first, if there is one, then the others in sorted order."""
    first = {joint: codes.z_y} if codes.z_y.shape[1] else {}
    return {**first, **{name: codes.z[name] for name in sorted(codes.z)}}


def _known(batch: AffectBatch, modalities: list[str], joint: list[str]) -> dict[str, Tensor]:
    """Which samples have each block, (B,) bool: those with the modality, or with any for the `joint` blocks."""
    nothing = torch.zeros_like(next(iter(batch.present.values())))
    known = {
        name: batch.present[name] & (batch.lengths[name] > 0) if name in batch.present else nothing
        for name in modalities
    }
    anything = torch.stack(list(known.values())).any(dim=0)
    return {**known, **dict.fromkeys(joint, anything)}
