"""Which task comes next: those whose inputs are there, chosen so that workers seldom change models."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.runners.base import Need, Task, Worker
from pipeline.stages import ORDER, Resources

BATCH = 8
"""Tasks that must be ready before a worker leaves other work for a stage: loading a model takes minutes."""

PULL = 2.0
"""How many times the work a worker that another lane must have before this one's worker goes over."""

Rank = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class _Lane:
    """What is left to do of one stage of one lane; ``seconds`` are those of its ``finished`` tasks."""

    rank: Rank
    resources: Resources
    ready: list[tuple[int, int, str, Task]] = field(default_factory=list)
    left: int = 0
    finished: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Waiting:
    task: Task
    needs: int


class Flow:
    """Tasks in the order of what they need.

    With ``overlap`` any task may run whose inputs are there, whatever its stage: judges label the first
    buckets while generators are at later ones. Without, a stage begins when all before it are done.
    """

    def __init__(self, *, overlap: bool) -> None:
        self._overlap = overlap
        self._lanes: dict[str, _Lane] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._awaited: defaultdict[str, list[str]] = defaultdict(list)
        self._left: Counter[Rank] = Counter()
        self._by_category: Counter[str] = Counter()
        self._finished, self._seconds = 0, 0.0

    def add(self, task: Task, needs: Iterable[str]) -> None:
        """Take in a task that waits for the parts ``needs``; all of them are of tasks taken in before."""
        key, keys = task.unit.key, list(needs)
        lane = self._lanes.setdefault(
            task.stage.folder, _Lane(rank=_rank(task), resources=task.stage.resources)
        )
        lane.left += 1
        self._left[lane.rank] += 1
        self._by_category[task.stage.category_name] += 1
        if not keys:
            self._push(task)
            return
        self._waiting[key] = _Waiting(task=task, needs=len(keys))
        for need in keys:
            self._awaited[need].append(key)

    def retry(self, task: Task) -> None:
        """Take a task back that was given out; it comes after all that have been tried less often."""
        self._push(task)

    def done(self, task: Task, seconds: float) -> None:
        """Note that a task's part is there: what waited for it may be ready now."""
        lane = self._lanes[task.stage.folder]
        lane.finished, lane.seconds = lane.finished + 1, lane.seconds + seconds
        self._finished, self._seconds = self._finished + 1, self._seconds + seconds
        self._settle(task)
        for key in self._awaited.pop(task.unit.key, ()):
            self._fulfil(key)

    def failed(self, task: Task, excused: Callable[[Task], bool]) -> list[str]:
        """Give up a task and all that needs its part; those ``excused`` do without it. Return their keys."""
        lost, given_up = deque((task,)), list[str]()
        while lost:
            task = lost.popleft()
            given_up.append(task.unit.key)
            self._settle(task)
            for key in self._awaited.pop(task.unit.key, ()):
                waiting = self._waiting.get(key)
                if waiting and excused(waiting.task):
                    self._fulfil(key)
                elif waiting:
                    del self._waiting[key]
                    lost.append(waiting.task)
        return given_up

    def next(self, worker: Worker, staff: Mapping[str, int]) -> Task | None:
        """Return the task that ``worker`` should do now, if any; ``staff`` counts workers by open stage.

        A worker stays with the stage that it has open, unless others have it open too and another stage
        lacks workers far more.
        """
        able = {name: lane for name, lane in self._able() if worker.resources in (None, lane.resources)}
        if not able:
            return None
        others = dict(staff)
        others[worker.open] = others.get(worker.open, 1) - 1
        pulls = {name: self._work(lane) / (others.get(name, 0) + 1) for name, lane in able.items()}
        manned = {name for name in able if others.get(name)}
        worth = [name for name, lane in able.items() if name in manned or len(lane.ready) >= _batch(lane)]
        best = max(worth or able, key=lambda name: (pulls[name], able[name].rank, name))
        if worker.open in able and (worker.open not in manned or pulls[best] <= PULL * pulls[worker.open]):
            best = worker.open
        return heapq.heappop(able[best].ready)[-1]

    def needs(self) -> dict[Resources, Need]:
        """Return what is left of the kinds of work that have a task ready, by the resources they take."""
        found = {lane.resources: Need() for _, lane in self._able()}
        for lane in self._lanes.values():
            if need := found.get(lane.resources):
                need.tasks, need.seconds = need.tasks + lane.left, need.seconds + self._work(lane)
        return found

    def left(self, category: str) -> int:
        """Return how many tasks of a category are neither done nor given up."""
        return self._by_category[category]

    def floor(self) -> int:
        """Return the place in ORDER of the first stage that has work left; the length of ORDER: none has."""
        return min((rank[0] for rank, count in self._left.items() if count), default=len(ORDER))

    def _able(self) -> Iterator[tuple[str, _Lane]]:
        """Yield the lanes that have tasks for workers."""
        lowest = min((rank for rank, count in self._left.items() if count), default=None)
        for name, lane in self._lanes.items():
            if lane.ready and (self._overlap or lane.rank == lowest):
                yield name, lane

    def _work(self, lane: _Lane) -> float:
        """Return the worker-seconds left in a lane; one that has finished nothing takes what others take."""
        if lane.finished:
            return lane.left * lane.seconds / lane.finished
        return lane.left * (self._seconds / self._finished if self._finished else 1.0)

    def _push(self, task: Task) -> None:
        entry = (task.attempt, task.unit.bucket, task.unit.name, task)
        heapq.heappush(self._lanes[task.stage.folder].ready, entry)

    def _fulfil(self, key: str) -> None:
        """Take one off what a task waits for."""
        if waiting := self._waiting.get(key):
            waiting.needs -= 1
            if not waiting.needs:
                del self._waiting[key]
                self._push(waiting.task)

    def _settle(self, task: Task) -> None:
        lane = self._lanes[task.stage.folder]
        lane.left -= 1
        self._left[lane.rank] -= 1
        self._by_category[task.stage.category_name] -= 1


def _rank(task: Task) -> Rank:
    return ORDER.index(type(task.stage)), task.stage.wave


def _batch(lane: _Lane) -> int:
    """Return how many tasks must be ready for a worker to come over to a lane that no other is at."""
    return min(BATCH, lane.left)
