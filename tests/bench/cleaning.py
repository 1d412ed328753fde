"""How fast pools are cleaned, in how much memory, and what the checks catch (--labelled)."""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.pools import grow
from pipeline.pools.clean import minors, nsfw, other_language, pii, tidy
from pipeline.pools.imports import import_pool
from pipeline.report.statistics import Share

LABELLED = Path(__file__).parent.parent / "unit/labelled_prompts.toml"
CHECKS: dict[str, Callable[[str], str | None]] = {
    "nsfw": nsfw,
    "minors": minors,
    "pii": pii,
    "language": lambda text: other_language(text, ("en",)),
}
ENDINGS = (
    "8k",
    "highly detailed",
    "artstation",
    "soft light",
    "wide angle",
    "35mm",
    "cinematic",
    "sharp focus",
)


def missed(check: str) -> tuple[list[str], list[str], int, int]:
    """Return what a check misses and what it drops wrongly among the labelled prompts, and their numbers."""
    labelled = tomllib.loads(LABELLED.read_text())[check]
    drops = CHECKS[check]
    lost = [text for text in labelled["yes"] if drops(tidy(text)) is None]
    wrong = [text for text in labelled["no"] if drops(tidy(text)) is not None]
    return lost, wrong, len(labelled["yes"]), len(labelled["no"])


def show_labelled() -> None:
    """Print precision and recall of every check, with 95 % intervals, and each mistake."""
    for check in CHECKS:
        lost, wrong, yes, no = missed(check)
        hits = yes - len(lost)
        recall, precision = Share(hits, yes), Share(hits, hits + len(wrong))
        print(f"{check}: {yes} to drop, {no} to keep")
        for name, share in (("precision", precision), ("recall", recall)):
            low, high = share.interval
            print(f"  {name} {share.hits}/{share.total} = {share.value:.3f} ({low:.3f}-{high:.3f})")
        for text in lost:
            print(f"    missed: {text}")
        for text in wrong:
            print(f"    wrongly dropped: {text}")


def synthetic(count: int, seed: int = 0) -> Iterator[str]:
    """Yield prompts as public sets have them: grown ones, a tenth of them copies, near copies and dirt."""
    draw, earlier = random.Random(seed), "a cat on a mat"
    for prompt in grow("aesthetics", count, bucket_size=100):
        kind = draw.random()
        if kind < 0.04:
            yield earlier.upper()
        elif kind < 0.08:
            yield f"{earlier} {draw.choice(ENDINGS)}"
        elif kind < 0.10:
            yield draw.choice(
                ("", "ein Hund am Strand im Regen", "mail me@example.com", "a naked man", "x" * 3000)
            )
        else:
            earlier = f"{prompt.text.rstrip('.')}, {', '.join(draw.sample(ENDINGS, 3))}"
            yield earlier


def measure(rows: int, similar: float) -> None:
    """Import ``rows`` synthetic rows and print their rate and the peak of memory."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.jsonl"
        with raw.open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in synthetic(rows))
        before, start, cpu = _peak(), time.perf_counter(), time.process_time()
        made = import_pool(
            [str(raw)],
            format="plain",
            out=f"{folder}/pool.parquet",
            licence="CC0-1.0",
            source="synthetic",
            similar=similar,
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"{made.rows:,} rows in {seconds:.0f} s, {cpu:.0f} s of CPU: {made.rows / cpu:,.0f} rows a CPU-second"
    )
    print(f"peak memory {_peak():,.0f} MiB, {before:,.0f} MiB of it before the first row")
    print(
        f"kept {made.kept:,}; dropped " + ", ".join(f"{reason} {n:,}" for reason, n in made.dropped.items())
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument(
        "--similar", type=float, default=0.0, help="cosine for the check by embedding (0: off)"
    )
    parser.add_argument("--labelled", action="store_true", help="instead: what the checks catch")
    given = parser.parse_args()
    show_labelled() if given.labelled else measure(given.rows, given.similar)


if __name__ == "__main__":
    main()
