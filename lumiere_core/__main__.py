"""`python -m lumiere_core VERB`, and `python path/to/lumiere_core VERB` from any folder."""

import sys
from pathlib import Path

if not __package__:  # started by path, perhaps isolated (-I): find the package by its own place
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "lumiere_core"

from lumiere_core.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
