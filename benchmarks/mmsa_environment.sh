#!/usr/bin/env bash
# MMSA 2.2.1 (github.com/thuiar/MMSA) from PyPI into a directory of its own, for `benchmarks/speed.py --mmsa DIR`.
#
#   bash benchmarks/mmsa_environment.sh DIR
#
# Without its dependencies: the benchmark imports the files of its MFM and MFN alone, which need torch only and run on
# the torch of this environment, so that both sides are measured in one process. The package's entry point, which calls
# torch.cuda.set_device on every machine, is not imported. Nothing of MMSA is copied into this repository.
set -euo pipefail
directory=${1:?give a directory to install into}
python=${PYTHON:-$(dirname "$0")/../.venv/bin/python}
"$python" -m pip --disable-pip-version-check install --quiet --no-deps --target "$directory" MMSA==2.2.1
echo "installed: $directory/MMSA"
