"""`python -m cm2.cli` is the command `cm2`."""

import sys

from cm2.cli import main

if __name__ == "__main__":
    sys.exit(main())
