"""The Multimodal Factorization Model as a LightningModule."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, TypeVar

from torch import Tensor

from mfm.corpora import CORPORA
from mfm.data.batch import AffectBatch
from mfm.losses.objective import MFMObjective
from mfm.models.mfm import MFM, MFMOutput
from mfm.modules.base import AffectModule, Prediction, StepOutput

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
        encoder: Q(Z_i | X_i): `lstm` (the paper's), `gru`, `transformer` or `mean`, or a mapping with `name` and
            settings (`mfm parts` lists them).
        fusion: Q(Z_y | X_1..M): `mfn` (the paper's), `concat_lstm` or `transformer`, or a mapping like `encoder`.
        decoder: `free_running` (the paper's), `teacher_forced` or `mlp`, or a mapping with `name` and settings.
        dropout_y: Dropout in G_y, [0, 1).
        dropout: Dropout in each G_i, [0, 1).
        dropout_head: Dropout in the head D, [0, 1).
        code_noise: Deviation of Gaussian noise on the codes before G while training; the paper has none.
        weight_prediction: Weight of the prediction loss.
        weight_reconstruction: Weight of each modality's reconstruction loss (lambda_i).
        weight_mmd: Weight of MMD(Q(Z), P(Z)) (lambda).
        weight_independence: Weight of the normalised HSIC between Z_y and each Z_i, which keeps the label out of the
            Z_i; the paper has none. 1 together with `weight_mmd: 10` and `code_noise: 0.5` separates the factors.
        kernel: Kernel of the MMD: `rbf` (several scales), `imq`, or `original` (the authors', nearly flat).
        mmd_on: MMD on the `joint` Z, as the paper's objective says, or on its `marginals`, as the authors' code does.
        unbiased: Unbiased (U-statistic) instead of biased (V-statistic) estimate of the MMD.
        prediction_loss: Regression: `l1` (the paper's and the default), `mse` or `huber`; classes have cross-entropy.
        reconstruction_loss: `mse` (the paper's) or `l1`.
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
        code_noise: float = 0.0,
        weight_prediction: float = 1.0,
        weight_reconstruction: float | dict[str, float] = 1.0,
        weight_mmd: float = 1.0,
        weight_independence: float = 0.0,
        kernel: str = "rbf",
        mmd_on: Literal["joint", "marginals"] = "joint",
        unbiased: bool = False,
        prediction_loss: str | None = None,
        reconstruction_loss: str = "mse",
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
        )
        self.objective = MFMObjective(
            self.corpus.task,
            modalities=sorted(used),
            prediction=weight_prediction,
            reconstruction=for_modalities(weight_reconstruction, used),
            mmd=weight_mmd,
            independence=weight_independence,
            kernel=kernel,
            mmd_on=mmd_on,
            unbiased=unbiased,
            prediction_loss=prediction_loss,
            reconstruction_loss=reconstruction_loss,
        )

    def forward(self, batch: AffectBatch) -> tuple[MFMOutput, dict[str, Tensor]]:
        """Run the model on a batch in the file's units.

        Returns:
            The model's output (reconstructions in normalised units) and the normalised features it saw.
        """
        features = self.normalizer(batch.features, batch.lengths)
        return self.model(features, batch.lengths, batch.present), features

    def step(self, batch: AffectBatch) -> StepOutput:
        """Objective and prediction for one batch."""
        output, features = self(batch)
        parts = self.objective(
            output.prediction,
            batch.target,
            batch.target_mask,
            output.reconstruction,
            features,
            batch.lengths,
            batch.present,
            output.codes.z_y,
            output.codes.z,
        )
        return StepOutput(parts.total, parts.parts, output.prediction)

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions, codes and factors of one batch."""
        output, _ = self(batch)
        return Prediction(
            batch.ids,
            output.prediction.float(),
            batch.target,
            batch.target_mask,
            {"y": output.codes.z_y.float(), **{name: code.float() for name, code in output.codes.z.items()}},
            {"y": output.factors.f_y.float(), **{name: factor.float() for name, factor in output.factors.f.items()}},
        )
