"""`python -m mekt` is the `mekt` command."""

import sys

from mekt.cli import main

if __name__ == "__main__":
    sys.exit(main())
