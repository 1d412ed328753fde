"""What a build tells Prometheus and programs that read its log: names, dashboard, events."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline import api
from pipeline.errors import ConfigError
from pipeline.runners import events, metrics
from pipeline.runners.base import Done, Outcome, Task
from pipeline.runners.events import Event, JsonLines, name_of, without_secrets
from pipeline.runners.metrics import METRICS, PREFIX, counts
from pipeline.runners.progress import Display
from pipeline.stages import lanes
from pipeline.storage import open_store
from tests.e2e.world import Project

ROOT = Path(__file__).parents[2]
EVENTS: tuple[type[Event], ...] = typing.get_args(Event)


# ---- metrics


def test_names_follow_the_conventions_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming: base units, and _total for what only grows."""
    for metric in METRICS:
        assert re.fullmatch(r"vipo_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not re.search(r"_(count|sum|bucket|milliseconds|minutes|megabytes)(_|$)", metric.name)
        assert metric.about.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def series(name: str) -> Iterator[str]:
    """Yield the names under which Prometheus knows a metric."""
    metric = next(metric for metric in METRICS if metric.name == name)
    ends = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
    return (f"{PREFIX}{name}{end}" for end in ends)


def selectors(query: str) -> Iterator[Any]:
    """Yield each selector of a PromQL query, which must parse. Grafana fills in its own variables."""

    def below(node: Any) -> Iterator[Any]:
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        for name in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
            if getattr(node, name, None) is not None:
                yield from below(getattr(node, name))
        for argument in getattr(node, "args", ()):
            yield from below(argument)

    return below(promql_parser.parse(re.sub(r"\$__(rate_interval|range)", "5m", query)))


def test_every_query_of_the_dashboard_names_metrics_that_exist_and_their_labels() -> None:
    board = json.loads((ROOT / "infra/grafana/build.json").read_text())
    known = {name: metric for metric in METRICS for name in series(metric.name)}
    asked: set[str] = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            found = list(selectors(target["expr"]))
            assert found, target["expr"]
            for selector in found:
                metric = known[selector.name]
                labels = {matcher.name for matcher in selector.matchers.matchers}
                assert labels <= {"run", *metric.labels}
                assert "run" in labels
                asked.add(metric.name)
            shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            by = re.findall(r" by \(([^)]*)\)", target["expr"])
            assert all(set(shown) <= set(re.split(r",\s*", names)) for names in by)
    assert asked == {metric.name for metric in METRICS}
    variable = next(item for item in board["templating"]["list"] if item["name"] == "run")
    assert re.findall(r"label_values\((\w+), run\)", variable["query"]["query"])[0] in known


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads((ROOT / "infra/grafana/build.json").read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.slow
def test_a_local_build_imports_no_ray(images: Project, tmp_path: Path) -> None:
    given = images.build(tmp_path / "run", "--quota", "1")
    code = f"import sys; from pipeline.cli import main; main({given!r}); assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_unit_s_rows_are_counted_where_they_are() -> None:
    media = pa.table({"media_sha256": ["a", None, "b"], "bytes": [3, 0, 4], "status": ["ok", "failed", "ok"]})
    assert counts(media) == {"bytes": 7, "failed": 1}
    labels = pa.table({"kept": [True, False, False, False], "reason": [None, "gold", "gold", "conflict"]})
    assert counts(labels) == {"kept": 1, "gold": 2, "conflict": 1}
    assert counts(pa.table({"id": ["a"]})) == {}


class Recorded(metrics.Meter):
    """Notes what would be recorded."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.seen: list[tuple[str, float, dict[str, str]]] = []

    def record(self, metric: metrics.Metric, value: float, **labels: str) -> None:
        assert set(labels) == set(metric.labels)
        self.seen.append((metric.name, value, labels))


def test_what_a_service_was_paid_counts_rows_that_were_made(images: Project) -> None:
    settings = images.settings()
    (category,) = settings.categories
    stage = lanes(category, settings, buckets=1).generate[0]
    priced = dataclasses.replace(stage.spec, dollars=0.25)
    stage.spec = priced
    meter = Recorded("run")
    done = Done(rows=5, seconds=2.0, counts={"failed": 1, "bytes": 900})
    meter.advance(Outcome(task=Task(stage=stage, unit=stage.unit(0)), done=done))
    model = stage.lane.partition(".")[2]
    lane = {"stage": "generate", "category": category.name, "model": model}
    assert ("vipo_remote_dollars_total", 1.0, {"category": category.name, "model": model}) in meter.seen
    assert ("vipo_rows_total", 5, lane) in meter.seen
    assert ("vipo_media_bytes_total", 900, lane) in meter.seen
    assert ("vipo_units_total", 1, {**lane, "state": "done"}) in meter.seen


# ---- events


def test_the_schema_of_events() -> None:
    """What programs that read the log rely on: a field may come, none may go."""
    assert {name_of(kind): [field.name for field in dataclasses.fields(kind)] for kind in EVENTS} == {
        "build_started": ["run", "settings", "profile", "runner", "categories", "versions"],
        "stage_started": ["stage", "units", "done"],
        "stage_progress": ["stage", "units", "done", "rows", "seconds", "seconds_left"],
        "stage_ended": ["stage", "units", "done", "rows", "seconds"],
        "unit_retried": ["unit", "attempt", "cause"],
        "unit_failed": ["unit", "cause"],
        "quota_reached": ["category", "kept", "quota"],
        "category_held_back": ["category"],
        "shards_written": ["category", "shards", "pairs", "bytes"],
        "build_ended": ["seconds", "failures", "kept", "short", "error"],
    }


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a field's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is tuple:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    return isinstance(value, (int, float) if hint is float else hint)


def read(text: str) -> list[dict[str, Any]]:
    """Return the events of a log, each checked against its class."""
    kinds = {name_of(kind): kind for kind in EVENTS}
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        hints = typing.get_type_hints(kinds[event["event"]])
        assert set(event) == {"time", "event", "driver", *hints}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert all(fits(event[name], hint) for name, hint in hints.items()), event
    return found


@pytest.mark.slow
def test_a_build_says_what_happens_in_lines_of_json(images: Project, tmp_path: Path) -> None:
    with io.StringIO() as file:
        api.build(images.settings(quota=2), str(tmp_path), console=Console(file=file), log="json")
        said = read(file.getvalue())
    names = [event["event"] for event in said]
    assert (names[0], names[-1]) == ("build_started", "build_ended")
    assert names.count("quota_reached") == names.count("shards_written") == 1
    assert len({event["driver"] for event in said}) == 1
    assert said[-1]["error"] is None
    assert said[-1]["kept"]["alignment"] >= 2
    assert [event["time"] for event in said] == sorted(event["time"] for event in said)


def test_what_goes_wrong_is_said_once_and_without_secrets(
    images: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPO_JUDGE_KEY", "a-secret-that-no-line-may-show")
    settings = images.settings()
    stage = lanes(settings.categories[0], settings, buckets=1).judge[0]
    task = Task(stage=stage, unit=stage.unit(0))
    cause = (
        "WorkerError: Bearer a-secret-that-no-line-may-show refused by https://me:hunter2@host/v1?sig=hunter2"
    )
    refused = ConfigError("key a-secret-that-no-line-may-show is refused")
    store = open_store(str(tmp_path))
    with io.StringIO() as file:
        display = Display(store, Console(file=file), log="json")
        with contextlib.suppress(ConfigError), display:
            display.expect("judge", total=1, done=0)
            display.begin("judge")
            display.retried(task, Done(cause=cause, seconds=1.0))
            display.advance(Outcome(task=dataclasses.replace(task, attempt=2), done=Done(cause=cause)))
            raise refused
        said = read(file.getvalue())
    assert [event["event"] for event in said] == [
        "stage_started",
        "unit_retried",
        "unit_failed",
        "build_ended",
    ]
    assert said[1]["attempt"] == 1
    assert said[2]["unit"] == task.unit.key
    assert said[3]["error"] == "ConfigError: key *** is refused"
    everything = file_of_diary(tmp_path) + json.dumps(said)
    assert "a-secret" not in everything
    assert "hunter2" not in everything
    assert "https://***@host/v1?sig=***" in said[2]["cause"]


def file_of_diary(run: Path) -> str:
    (diary,) = run.glob("progress/*.json")
    return diary.read_text()


@given(st.text(min_size=8).filter(lambda text: "*" not in text), st.text(), st.text())
def test_a_secret_s_value_is_nowhere_in_what_is_said(secret: str, before: str, after: str) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "db_password"):
        assert secret not in without_secrets(f"{before}{secret}{after}", {name: secret})


@pytest.mark.parametrize(
    "text",
    [
        "StorageError: s3://bucket/run: no such bucket",
        "judge at http://10.0.0.7:8000/v1/chat/completions?beta=true: 500",
        "/home/me/token: no such file",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text, {"RAY_AUTH_TOKEN_PATH": "/home/me/token", "HOME": "/home/me/token"}) == text


@given(st.builds(events.UnitFailed, unit=st.text(), cause=st.text()))
def test_an_event_is_one_line_whatever_it_says(event: events.UnitFailed) -> None:
    with io.StringIO(newline="") as file:
        JsonLines(file, "driver").write(event)
        (line,) = file.getvalue().splitlines()
    assert json.loads(line)["cause"] == event.cause
