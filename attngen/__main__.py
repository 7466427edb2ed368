"""`python -m attngen` is the `attngen` command."""

from __future__ import annotations

import sys

from attngen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
