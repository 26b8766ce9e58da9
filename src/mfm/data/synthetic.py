"""The public generator: corpora with known factors, in memory or written in the real files' formats.

* `synthetic_corpus`: factors, labels and features as plain arrays (`mfm.data.synthetic_world`).
* `write_corpus`: a file with exactly the structure of a known corpus' published one.
* `write_mmsa`, `write_mult`, `write_mfn`: one format each (`mfm.data.synthetic_files`). `write_mmsa` streams, so that
  a MOSEI-size file (22,856 x 50 x (768 + 74 + 35) float32, 4 GB) needs little memory::

      write_mmsa("mosei.pkl", "mosei", (16326, 1871, 4659), defects=False)
"""

from mfm.data.synthetic_files import write_corpus, write_mfn, write_mmsa, write_mult
from mfm.data.synthetic_world import SyntheticCorpus, SyntheticSplit, default_dims, synthetic_corpus

__all__ = [
    "SyntheticCorpus",
    "SyntheticSplit",
    "default_dims",
    "synthetic_corpus",
    "write_corpus",
    "write_mfn",
    "write_mmsa",
    "write_mult",
]
