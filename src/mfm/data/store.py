"""The project's own file: ragged, chunked, compressed HDF5 that training reads lazily.

Layout (names of modalities and label arrays are percent-encoded, since HDF5 reserves the slash)::

    /                              attrs: format, schema_version, fingerprint, provenance, aligned, notes
    /splits/<split>                attrs: has_ids
        ids, raw_text              (N,) UTF-8 strings; raw_text only where the source has it
        words/                     only where steps are words with known times
            texts                  (sum of lengths,) UTF-8 strings
            intervals              (sum of lengths, 2) float64: start and end in seconds of the video
            offsets                (N + 1,) int64
        labels/<name>              (N, K) float64, NaN where a label is missing
        sequences/<modality>       attrs: file_steps, dtype
            values                 (sum of lengths, D) float32: all real steps, one sample after the other
            offsets                (N + 1,) int64: sample i is values[offsets[i]:offsets[i + 1]]
            starts                 (N,) int64: position of the first real step in the source file
            observed               (sum of lengths,) bool: False where a zero vector stands for no observation; all
                                   steps were observed where it is absent

Padding is not stored; `starts` and `file_steps` give the source's padded layout back. Values are compressed with
shuffle + LZF where a trial of a few chunks says that they shrink by 15 % or more: words' embeddings, features that
repeat or hold zeros, which often shrink to a half or less. Others (BERT's, COVAREP's) would shrink by 6 to 11 % and
take ten times as long to write; they stand as they are, in one piece. LZF on the feature files of this field writes
three times as fast as gzip -1 and comes within 6 % of its size; it ships with h5py, other HDF5 software needs the
filter or `h5repack -f GZIP=1`.
"""

from mfm.data.store_content import FORMAT, SCHEMA_VERSION
from mfm.data.store_read import read_store, store_fingerprint, store_provenance
from mfm.data.store_verify import StoreReport, verify_store
from mfm.data.store_write import write_store

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "StoreReport",
    "read_store",
    "store_fingerprint",
    "store_provenance",
    "verify_store",
    "write_store",
]
