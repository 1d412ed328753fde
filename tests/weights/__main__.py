"""Put tiny checkpoints where a build looks for the weights of real models, to try one without a GPU.

    python -m tests.weights OUT FLUX.1-schnell LTX-Video    # rows of the table of generators, or all

Then, with weights = "OUT" and pins = "OUT/pins.toml" in a profile, `vipo weights pin` and `vipo build`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.config import nearest
from pipeline.generators.table import GENERATORS
from tests.weights import stand_ins

ROWS = {name: row for name, row in GENERATORS.items() if row.family == "diffusion"}


def main() -> None:
    """Write the checkpoints of the rows that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder that gets one folder a repository")
    parser.add_argument("row", nargs="*", metavar="ROW", help="a row that runs through diffusers")
    given = parser.parse_args()
    for name in given.row:
        if name not in ROWS:
            parser.error(f"no row {name!r} that runs through diffusers: {nearest(name, ROWS)}")
    stand_ins(given.out, (ROWS[name] for name in given.row or ROWS))
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(f"{given.out}: {len(list(given.out.glob('*/*')))} repositories, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
