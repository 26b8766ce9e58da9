"""All encoders and the fusion at once, and all decoders: LSTMs of equally long sequences share one loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mfm.models.decoders import Decoder, FreeRunningDecoder
from mfm.models.encoders import Encoder, LSTMEncoder
from mfm.models.fused_decoder import run_free
from mfm.models.fusion import Fusion
from mfm.models.lstm_groups import LSTMTask, run_lstms
from mfm.models.mfn import MemoryFusionNetwork
from mfm.models.packing import packing_of_all
from mfm.models.per_modality import PerModality


def encode_together(
    encoders: PerModality[Encoder],
    fusions: Sequence[Fusion],
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Every Z_ai and every Z_y, the same as from each part alone.

    Args:
        encoders: Q(Z_ai | X_i).
        fusions: Q(Z_y | X_1:M); any number.
        features: Modality -> (B, T_m, D_m), of every modality.
        lengths: Modality -> (B,) real steps, 0 where absent.

    Returns:
        As `Fusion.forward` of each, and modality -> as `Encoder.forward`.
    """
    tasks: list[LSTMTask] = []
    last: dict[str, int] = {}
    cells: dict[int, tuple[slice, Mapping[str, Tensor]]] = {}
    for name, encoder in encoders.items():
        if isinstance(encoder, LSTMEncoder) and encoder.runs_fused(features[name]):
            last[name] = len(tasks)
            tasks.append(encoder.task(features[name], lengths[name]))
    for place, fusion in enumerate(fusions):
        if isinstance(fusion, MemoryFusionNetwork) and fusion.runs_fused():
            clocked, own_lengths = fusion.on_its_clock(features, lengths)
            own = fusion.tasks(clocked, own_lengths)
            cells[place] = slice(len(tasks), len(tasks) + len(own)), own_lengths
            tasks += own
    states = run_lstms(tasks)
    z, z_y = {}, []
    for name, encoder in encoders.items():
        if name in last and isinstance(encoder, LSTMEncoder):
            z[name] = encoder.read_out(states[last[name]].last, lengths[name])
        else:
            z[name] = encoder(features[name], lengths[name])
    for place, fusion in enumerate(fusions):
        if place in cells and isinstance(fusion, MemoryFusionNetwork):
            which, own_lengths = cells[place]
            z_y.append(fusion.fuse(states[which], own_lengths))
        else:
            z_y.append(fusion(features, lengths))
    return z_y, z


def decode_together(
    decoders: PerModality[Decoder],
    f_y: Tensor,
    f: Mapping[str, Tensor],
    steps: Mapping[str, int],
    inputs: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Every X^_i, the same as from each decoder alone.

    Args:
        decoders: Dec_i.
        f_y: (B, f_y) F_y.
        f: Modality -> (B, f_i) F_ai.
        steps: Modality -> steps T_m to decode, for the modalities to decode.
        inputs: Modality -> (B, T_m, D_m) true sequences, for decoders that are taught with them.

    Returns:
        Modality -> (B, T_m, D_m), sorted.
    """
    decoded: dict[str, Tensor] = {}
    groups: dict[int, dict[str, FreeRunningDecoder]] = {}
    for name in sorted(steps):
        decoder = decoders[name]
        if isinstance(decoder, FreeRunningDecoder) and decoder.runs_fused():
            groups.setdefault(steps[name], {})[name] = decoder
        else:
            decoded[name] = decoder(f_y, f[name], steps[name], inputs.get(name))
    for count, group in groups.items():
        packing = packing_of_all(len(f_y), max(count, 1), like=f_y)
        first = [torch.cat([f_y, f[name]], dim=1) for name in group]
        states = run_free(first, [decoder.weights() for decoder in group.values()], packing)
        for (name, decoder), hidden in zip(group.items(), states, strict=True):
            decoded[name] = decoder.read_out(hidden, packing)[:, :count]
    return {name: decoded[name] for name in sorted(decoded)}
