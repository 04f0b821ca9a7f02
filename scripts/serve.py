"""Serves a model over HTTP as OpenAI's server does: python scripts/serve.py MODEL [--option value ...]"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The library's folder goes to the end of the path: a program in it may have the name of a package.
    sys.path.append(sys.path.pop(0))
    from mosaic_lab.cli import run

    run(Path(__file__).stem)
