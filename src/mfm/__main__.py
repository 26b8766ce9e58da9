"""`python -m mfm` is the `mfm` command."""

import sys

from mfm.cli import main

if __name__ == "__main__":
    sys.exit(main())
