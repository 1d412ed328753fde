"""What does it cost to ask a judge? The endpoint judge next to the plain ``openai`` client, same questions.

    make bench-client            or            python -m tests.bench.client --rounds 5 --prompts 20

The server answers every request alike without reading it, so what is measured is the client: verdicts a
second, and CPU time of the asking process for each. A question brings two JPEGs of about 450 KB; as in a
build, four generations of a prompt make six pairs, each asked in both orders. The sides take turns, each in a
process of its own:

- openai, in a loop: ``openai.OpenAI``, one question after the other, media encoded for each
- openai, in flight: ``openai.AsyncOpenAI``, as many at a time as the judge
- judge, all sent: ``EndpointJudge`` on a server that is not known to hold media
- judge, held: the same on one that is vLLM: a medium travels once, then it is named
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from pipeline import media
from pipeline.config import Rubric
from pipeline.judges.base import JudgeSpec, Media, Question
from pipeline.judges.endpoint import EndpointJudge
from pipeline.judges.sites import Limits
from pipeline.records import Checks

RUBRIC = Rubric(question="Which image looks better?", criteria=("No noise, blur or banding.",))
SIDES = ("openai, in a loop", "openai, in flight", "judge, all sent", "judge, held")
NOISE = 5.5
"""Grain that makes a JPEG of 1024 x 1024 px weigh about 450 KB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=20, help="each makes 12 verdicts")
    parser.add_argument("--side", choices=SIDES, help="run this side alone, in this process")
    given = parser.parse_args()
    if given.side:
        print(*_one(given.side, questions(given.prompts)))
        return
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number, side in itertools.product(range(given.rounds), SIDES):
        command = [
            sys.executable,
            "-m",
            "tests.bench.client",
            "--prompts",
            str(given.prompts),
            "--side",
            side,
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        found[side].append((float(said[0]), float(said[1])))
        print(f"round {number + 1}: {side}: {said[0]} verdicts/s, {said[1]} ms of CPU each", flush=True)
    _report(found)


def _report(found: dict[str, list[tuple[float, float]]]) -> None:
    base = found[SIDES[0]]
    print(f"\nmedians of {len(base)} rounds; ratios to {SIDES[0]!r} in the same round")
    print("| client | verdicts/s | ratio | CPU ms a verdict | ratio |\n|---|---|---|---|---|")
    for side, rows in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        faster = statistics.median(one[0] / other[0] for one, other in zip(rows, base, strict=True))
        less = statistics.median(one[1] / other[1] for one, other in zip(rows, base, strict=True))
        print(f"| {side} | {rate:.0f} | {faster:.1f} | {cpu:.2f} | {less:.2f} |")


def questions(prompts: int) -> list[Question]:
    """Return both orders of six pairs of each prompt."""
    return [
        Question(id="", prompt=f"prompt {number}", checks=Checks(), rubric=RUBRIC, a=a, b=b)
        for number in range(prompts)
        for one, other in itertools.combinations([picture(4 * number + each) for each in range(4)], 2)
        for a, b in ((one, other), (other, one))
    ]


def picture(seed: int) -> Media:
    """Return a grainy JPEG of 1024 x 1024 px."""
    draw = np.random.default_rng(seed)
    soft = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((1024, 1024))
    grain = draw.standard_normal((512, 512, 1)).repeat(2, 0).repeat(2, 1) * NOISE
    made = media.encode((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)[None], 0)
    return Media(sha256=made.sha256, mime=made.mime, data=made.data)


def _one(side: str, asked: list[Question]) -> tuple[str, str]:
    run = {SIDES[0]: _loop, SIDES[1]: _in_flight}.get(side, _judge)
    with null_server("vllm" if side == "judge, held" else "someone") as url:
        run(url, asked[:12])  # imports, connections
        began, cpu = time.perf_counter(), time.process_time()
        run(url, asked)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return f"{len(asked) / wall:.1f}", f"{cpu / len(asked) * 1e3:.3f}"


@contextmanager
def null_server(owner: str) -> Iterator[str]:
    """Run the server in a process of its own; yield its url."""
    command = [sys.executable, "-m", "tests.e2e.openai_server", "--owner", owner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


def _judge(url: str, asked: list[Question]) -> None:
    judge = EndpointJudge(JudgeSpec(name="judge", family="vlm", modalities=("image",)), (url,))
    judge.open()
    assert all(answer.choice == "a" for answer in judge.ask(asked))
    judge.close()


def _loop(url: str, asked: list[Question]) -> None:
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")
    for question in asked:
        _read(client.chat.completions.create(**_request(question)))


def _in_flight(url: str, asked: list[Question]) -> None:
    import openai

    async def run() -> None:
        client, rest = openai.AsyncOpenAI(base_url=url, api_key="none"), iter(asked)

        async def worker() -> None:
            for question in rest:
                _read(await client.chat.completions.create(**_request(question)))

        await asyncio.gather(*(worker() for _ in range(Limits().in_flight)))

    asyncio.run(run())


def _request(question: Question) -> dict[str, Any]:
    """Return the request as one writes it by hand: the same parts, the same constraint."""

    def part(medium: Media) -> dict[str, Any]:
        url = f"data:{medium.mime};base64,{base64.b64encode(medium.data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    content = [text("Image A:"), part(question.a), text("Image B:"), part(question.b), text(RUBRIC.question)]
    return {
        "model": "judge",
        "messages": [{"role": "system", "content": "You compare."}, {"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "extra_body": {"structured_outputs": {"choice": ["A", "B", "C"]}},
    }


def _read(reply: Any) -> None:
    top = reply.choices[0].logprobs.content[0].top_logprobs
    assert max(top, key=lambda each: each.logprob).token == "A"  # noqa: S105


if __name__ == "__main__":
    main()
