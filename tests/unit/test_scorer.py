"""Scorers: a real CLIP and a real predictor of aesthetics, both tiny, and a real server that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import shutil
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from pipeline import media
from pipeline.config import Pin, Rubric
from pipeline.errors import ConfigError, WorkerError
from pipeline.judges.base import Answer, JudgeSpec, Media, Question
from pipeline.judges.scorer import BATCH, ScorerJudge
from pipeline.judges.scorer_http import variable
from pipeline.judges.sites import Limits
from pipeline.records import Checks
from pipeline.weights import Weights, pin
from tests.weights import clip

PROMPTS = ("a red cat on the road", "two blue dogs behind a house")
SOON = Limits(in_flight=4, timeout=5, attempts=3, rest=0.001, longest=0.001)
TORN = Media(sha256="0" * 64, mime="image/jpeg", data=b"\xff\xd8 no jpeg")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("weights")
    clip.clip().save_pretrained(folder / "clip", safe_serialization=True)
    clip.aesthetic().save_pretrained(folder / "aesthetic", safe_serialization=True)
    return folder


def picture(seed: int, height: int = 40, width: int = 60) -> Media:
    """Return a JPEG with large patches, so that scaling down leaves something to see."""
    cells = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST).save(buffer, "JPEG")
    data = buffer.getvalue()
    return Media(sha256=hashlib.sha256(data).hexdigest(), mime="image/jpeg", data=data)


def spec(kind: str, root: Path | None = None, **options: float | str) -> JudgeSpec:
    weights = None
    if root is not None:
        (made,) = pin([kind], str(root))
        assert isinstance(made, Pin), made
        weights = Weights(repo=kind, disk=0.0, memory=0.0, root=str(root), revision=made.revision)
    given: dict[str, float | str] = {"scorer": kind, "margin": 0.0, "scale": 1.0, **options}
    return JudgeSpec(
        name=f"Tiny-{kind}.1", family="scorer", modalities=("image",), weights=weights, options=given
    )


def question(prompt: str, a: Media, b: Media) -> Question:
    rubric = Rubric(question="", criteria=())
    return Question(id="0", prompt=prompt, checks=Checks(), rubric=rubric, a=a, b=b)


@contextmanager
def judging(row: JudgeSpec, limits: Limits | None = None) -> Iterator[ScorerJudge]:
    judge = ScorerJudge(row, limits)
    try:
        judge.open()
        yield judge
    finally:
        judge.close()


def test_clip_scores_are_those_of_transformers(root: Path) -> None:
    folder = root / "clip"
    model = CLIPModel.from_pretrained(folder)
    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    )
    media_seen = [picture(seed) for seed in range(3)]
    decoded = [Image.open(io.BytesIO(medium.data)) for medium in media_seen]
    given = processor(text=list(PROMPTS), images=decoded, return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = model(**given).logits_per_image
    with judging(spec("clip", root)) as judge:
        found = judge.scores([(prompt, medium) for medium in media_seen for prompt in PROMPTS])
    assert found == pytest.approx(expected.flatten().tolist(), abs=1e-4)
    assert len(set(found)) == 6, "neither prompt nor picture may be without effect"


def test_aesthetic_scores_are_those_of_the_predictor_and_the_prompt_has_no_say(root: Path) -> None:
    head = nn.Sequential(
        *(nn.Linear(*clip.HEAD[0]), nn.Dropout(0.2), nn.Linear(*clip.HEAD[2]), nn.Dropout(0.2)),
        *(nn.Linear(*clip.HEAD[4]), nn.Dropout(0.1), nn.Linear(*clip.HEAD[6]), nn.Linear(*clip.HEAD[7])),
    ).eval()
    head.load_state_dict({name.removeprefix("layers."): value for name, value in clip.head().items()})
    sees = clip.aesthetic().sees.model
    prepare = CLIPImageProcessorPil.from_pretrained(root / "aesthetic")
    seen = picture(1)
    pixels = prepare(images=Image.open(io.BytesIO(seen.data)), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        embedded = sees(pixel_values=pixels).image_embeds
        expected = float(head(embedded / embedded.norm()))
    with judging(spec("aesthetic", root)) as judge:
        assert judge.scores([(prompt, seen) for prompt in PROMPTS]) == pytest.approx([expected] * 2, abs=1e-5)


@pytest.mark.parametrize("kind", ["clip", "aesthetic"])
def test_swapping_the_sides_mirrors_the_answer(root: Path, kind: str) -> None:
    pairs = [(picture(seed), picture(seed + 100)) for seed in range(BATCH + 3)]
    with judging(spec(kind, root)) as judge:
        forward = list(judge.ask(question(PROMPTS[0], a, b) for a, b in pairs))
    with judging(spec(kind, root)) as judge:
        swapped = list(judge.ask(question(PROMPTS[0], b, a) for a, b in pairs))
    for one, other in zip(forward, swapped, strict=True):
        assert {one.choice, other.choice} == {"a", "b"}
        assert one.p_a is not None
        assert other.p_a == pytest.approx(1 - one.p_a, abs=1e-5)
        assert (one.p_a > 0.5) == (one.choice == "a")


def test_scores_nearer_than_the_margin_are_a_tie(root: Path) -> None:
    a, b = picture(1), picture(2)
    with judging(spec("clip", root)) as judge:
        one, other = judge.scores([(PROMPTS[0], a), (PROMPTS[0], b)])
        assert isinstance(one, float)
        assert isinstance(other, float)
        assert [answer.choice for answer in judge.ask([question(PROMPTS[0], a, a)])] == ["tie"]
    apart = abs(one - other)
    for margin, ties in ((apart * 1.01, True), (apart * 0.99, False)):
        with judging(spec("clip", root, margin=margin)) as judge:
            (answer,) = judge.ask([question(PROMPTS[0], a, b)])
            assert (answer.choice == "tie") == ties


def test_a_torn_medium_is_invalid_and_spoils_no_other_answer(root: Path) -> None:
    a, b = picture(1), picture(2)
    asked = [question(PROMPTS[0], a, b), question(PROMPTS[0], TORN, b), question(PROMPTS[0], a, TORN)]
    with judging(spec("clip", root)) as judge:
        (alone,) = judge.ask(asked[:1])
    with judging(spec("clip", root)) as judge:
        first, *rest = judge.ask(asked)
    assert first.choice == alone.choice
    assert first.p_a == pytest.approx(alone.p_a, abs=1e-5)
    assert {answer.choice for answer in rest} == {"invalid"}
    assert all("not a JPEG" in answer.raw for answer in rest)


def test_a_video_has_the_mean_score_of_its_frames(root: Path) -> None:
    frames = np.stack([media.decode(picture(seed, 64, 96).data, "image/jpeg")[0] for seed in (1, 2, 3)])
    made = media.encode(frames, fps=8)
    video = Media(sha256=made.sha256, mime=made.mime, data=made.data)
    shown = media.decode(made.data, made.mime)
    stills = [media.encode(frame[None], fps=0) for frame in shown]
    with judging(spec("aesthetic", root, frames=3)) as judge:
        (whole,) = judge.scores([(PROMPTS[0], video)])
        each = judge.scores([(PROMPTS[0], Media(sha256=s.sha256, mime=s.mime, data=s.data)) for s in stills])
    assert whole == pytest.approx(sum(score for score in each if isinstance(score, float)) / 3, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "lacks", "said"),
    [
        ("clip", "text_projection.weight", "no CLIPModel of its config.json: without text_projection.weight"),
        ("aesthetic", "layers.4.", "its head has linear layers at [0, 2, 6, 7]"),
    ],
)
def test_weights_that_are_not_whole_are_refused_not_made_up(
    root: Path, tmp_path: Path, kind: str, lacks: str, said: str
) -> None:
    shutil.copytree(root / kind, tmp_path / kind)
    held = load_file(tmp_path / kind / "model.safetensors")
    held = {name: value for name, value in held.items() if not name.startswith(lacks)}
    save_file(held, tmp_path / kind / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WorkerError) as raised, judging(spec(kind, tmp_path)):
        pass
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "other", "lacks", "said"),
    [
        ("clip", "clip", "tokenizer.json", "its tokenizer knows"),
        ("clip", "clip", "preprocessor_config.json", "load image processor"),
        ("aesthetic", "clip", "", "its head has linear layers at []"),
    ],
)
def test_files_of_another_model_are_refused(
    root: Path, tmp_path: Path, kind: str, other: str, lacks: str, said: str
) -> None:
    shutil.copytree(root / other, tmp_path / kind, ignore=shutil.ignore_patterns(lacks))
    with pytest.raises(WorkerError) as raised, judging(spec(kind, tmp_path)):
        pass
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_that_no_scorer_can_be_made_from_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"did you mean|use one of"):
        ScorerJudge(spec("clop"))
    with pytest.raises(ConfigError, match="needs weights"):
        ScorerJudge(spec("clip"))


class Server:
    """A scorer of its own behind HTTP: brightness. ``faults`` befall the first requests, one each."""

    def __init__(self, faults: Iterable[str] = (), refuses: bytes = b"\x00never") -> None:
        self.faults, self.asked, self.prompts = deque(faults), Counter[str](), Counter[str]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["content-length"])))
                data = base64.b64decode(given["image"])
                server.asked[hashlib.sha256(data).hexdigest()] += 1
                server.prompts[given["prompt"]] += 1
                fault = server.faults.popleft() if server.faults else ""
                if data == refuses:
                    self.reply(422, b'{"detail": "too small\\nfor me"}')
                elif fault.isdigit():
                    self.reply(int(fault), b"out of\nmemory")
                else:
                    bright = float(np.asarray(Image.open(io.BytesIO(data))).mean())
                    self.reply(200, fault.encode() or json.dumps({"score": bright}).encode())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/score"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, faults: Iterable[str] = (), refuses: bytes = b"\x00never"
) -> Iterator[Server]:
    server = Server(faults, refuses)
    monkeypatch.setenv("VIPO_SCORER_TINY_HTTP_1", server.url)
    try:
        yield server
    finally:
        server.stop()


def brightness(*asked: Media) -> list[float]:
    return [float(media.decode(medium.data, medium.mime).mean()) for medium in asked]


def test_a_scorer_behind_http_is_asked_once_for_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable(spec("http").name) == "VIPO_SCORER_TINY_HTTP_1"
    shown = [picture(seed) for seed in range(5)]
    with serving(monkeypatch) as server, judging(spec("http"), SOON) as judge:
        asked = [question(PROMPTS[0], a, b) for a in shown for b in shown if a is not b]
        answers = list(judge.ask(asked))
    levels = dict(zip((medium.sha256 for medium in shown), brightness(*shown), strict=True))
    for one, answer in zip(asked, answers, strict=True):
        assert answer.choice == ("a" if levels[one.a.sha256] > levels[one.b.sha256] else "b")
    assert [server.asked[medium.sha256] for medium in shown] == [1] * 5
    assert server.prompts[PROMPTS[0]] == 5


@pytest.mark.parametrize("fault", ["503", "429", "500", "{", "[]", '{"score": "high"}', '{"score": NaN}'])
def test_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    shown = picture(1)
    with serving(monkeypatch, ["", fault, fault]) as server, judging(spec("http"), SOON) as judge:
        assert judge.scores([(PROMPTS[0], shown)]) == pytest.approx(brightness(shown))
        assert server.asked[shown.sha256] == 3


def test_a_refused_medium_is_invalid_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, fine = picture(1), picture(2)
    with serving(monkeypatch, refuses=refused.data), judging(spec("http"), SOON) as judge:
        answers = list(judge.ask([question(PROMPTS[0], refused, fine), question(PROMPTS[0], fine, TORN)]))
    assert answers[0] == Answer(
        choice="invalid", p_a=None, raw='refused: HTTP 422, {"detail": "too small\\nfor me"}'
    )
    assert answers[1].choice == "invalid"


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["500"] * 20, "not even a plain grey picture"),
        (["", *["500"] * 20], "not even a plain grey picture"),
        (["", *["503"] * 20], "failed 3 times: HTTP 503, out of memory"),
        (["", "404"], "mend the url"),
        (["401"], "mend the url"),
    ],
)
def test_a_server_that_is_no_use_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, faults: list[str], said: str
) -> None:
    with (
        serving(monkeypatch, faults),
        pytest.raises(WorkerError) as raised,
        judging(spec("http"), SOON) as judge,
    ):
        judge.scores([(PROMPTS[0], picture(1))])
    assert said in str(raised.value)
    assert "VIPO_SCORER_TINY_HTTP_1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_goes_away_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch) as server, judging(spec("http"), SOON) as judge:
        assert math.isfinite(float(str(judge.scores([(PROMPTS[0], picture(1))])[0])))
        server.stop()
        with pytest.raises(WorkerError, match="start the scorer there"):
            judge.scores([(PROMPTS[0], picture(2))])


@pytest.mark.parametrize(
    "url", ["", "host:8000", "ftp://host/score", "http://me:secret@host/score", "http://["]
)
def test_a_url_that_is_none_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("VIPO_SCORER_TINY_HTTP_1", url)
    with (
        pytest.raises(ConfigError, match="VIPO_SCORER_TINY_HTTP_1 holds no url") as raised,
        judging(spec("http")),
    ):
        pass
    assert "secret" not in str(raised.value)
