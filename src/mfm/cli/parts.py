"""`mfm parts`: the named parts a configuration can choose from."""

from __future__ import annotations

import sys

from mfm.losses.mmd import KERNELS
from mfm.models.decoders import DECODERS
from mfm.models.encoders import ENCODERS
from mfm.models.fusion import FUSIONS
from mfm.models.networks import NETWORKS
from mfm.modules.optimisation import OPTIMIZERS, SCHEDULES


def main(arguments: list[str]) -> int:
    """Print encoders, fusions, decoders and networks with their settings, and the other names."""
    if arguments:
        sys.stdout.write("usage: mfm parts\n\nList the named parts of a model with their settings and defaults.\n")
        return 0 if arguments[0] in ("-h", "--help") else 2
    parts = (("encoder", ENCODERS), ("fusion", FUSIONS), ("decoder", DECODERS), ("network", NETWORKS))
    for option, registry in parts:
        sys.stdout.write(f"--model.{option}\n")
        sys.stdout.write("".join(f"  {line}\n" for line in registry.describe().splitlines()) + "\n")
    sys.stdout.write(f"--model.kernel     {', '.join(sorted(KERNELS))}\n")
    sys.stdout.write(f"--model.optimizer  {', '.join(sorted(OPTIMIZERS))}\n")
    sys.stdout.write(f"--model.schedule   {', '.join(SCHEDULES)}\n")
    return 0
