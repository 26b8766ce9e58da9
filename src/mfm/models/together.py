"""All encoders and the fusion at once, and all decoders: LSTMs of equally long sequences share one loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mfm.models.decoders import Decoder, FreeRunningDecoder
from mfm.models.encoders import Encoder, LSTMEncoder
from mfm.models.fused_decoder import run_free
from mfm.models.fusion import Fusion
from mfm.models.lstm_groups import LSTMTask, run_lstms
from mfm.models.masking import zero_padding
from mfm.models.mfn import MemoryFusionNetwork
from mfm.models.packing import Packing, packing_of, packing_of_all
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
    lengths: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Every X^_i, the same as from each decoder alone.

    Args:
        decoders: Dec_i.
        f_y: (B, f_y) F_y.
        f: Modality -> (B, f_i) F_ai.
        steps: Modality -> steps T_m to decode, for the modalities to decode.
        inputs: Modality -> (B, T_m, D_m) true sequences, for decoders that are taught with them.
        lengths: Modality -> (B,) steps wanted of each sample; those after them are 0, and free-running LSTMs do not
            run them. Without, all are wanted.

    Returns:
        Modality -> (B, T_m, D_m), sorted.
    """
    decoded: dict[str, Tensor] = {}
    groups: dict[Any, dict[str, FreeRunningDecoder]] = {}
    for name in sorted(steps):
        decoder = decoders[name]
        if isinstance(decoder, FreeRunningDecoder) and decoder.runs_fused():
            groups.setdefault(_key(steps[name], None if lengths is None else lengths[name]), {})[name] = decoder
            continue
        decoded[name] = decoder(f_y, f[name], steps[name], inputs.get(name))
        if lengths is not None and steps[name]:
            decoded[name] = zero_padding(decoded[name], lengths[name])
    for group in groups.values():
        one = next(iter(group))
        packing = _packing(f_y, steps[one], None if lengths is None else lengths[one])
        first = [torch.cat([f_y, f[name]], dim=1) for name in group]
        states = run_free(first, [decoder.weights() for decoder in group.values()], packing)
        for (name, decoder), hidden in zip(group.items(), states, strict=True):
            decoded[name] = decoder.read_out(hidden, packing)[:, : steps[name]]
            if lengths is not None and packing.rows is None and steps[name]:
                decoded[name] = zero_padding(decoded[name], lengths[name])
    return {name: decoded[name] for name in sorted(decoded)}


def _key(steps: int, lengths: Tensor | None) -> Any:
    """Equal where sequences are packed alike; on another device than the CPU lengths are not asked for."""
    return steps, tuple(lengths.tolist()) if lengths is not None and lengths.device.type == "cpu" else None


def _packing(f_y: Tensor, steps: int, lengths: Tensor | None) -> Packing:
    if lengths is None:
        return packing_of_all(len(f_y), max(steps, 1), like=f_y)
    return packing_of(lengths.clamp(max=steps), max(steps, 1))
