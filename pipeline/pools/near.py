"""Near duplicates: of prompts that say nearly the same, the first is kept.

Compared are the words of what is asked for: objects, style, place, light, literal text and so on, in no
order. Numbers, colours, sides, directions and the template are left out: prompts that differ in nothing
else are checkably different, yet read as one prompt, so only the first of them is kept.
"""

from __future__ import annotations

import re

from datasketch import MinHash, MinHashLSH

from pipeline.records import Checks

THRESHOLD = 0.75
"""Jaccard similarity of two sets of words: one word changed in seven or more, two in fourteen."""

# 16 bands of 6 rows find 95 % of the pairs at 0.75, 99 % at 0.8 and all equal ones; each find is checked.
_BANDS, _ROWS = 16, 6
_WORD = re.compile(r"[\w'-]+")
_LEFT_OUT = frozenset(("lettering", "placement"))
_JOINING = frozenset(("a", "an", "the", "of", "in", "on", "at", "beside", "under", "against", "none"))


class NearDuplicates:
    """Remembers what prompts ask for; finds a new one that asks for nearly the same."""

    def __init__(self) -> None:
        self._index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
        self._said: list[frozenset[bytes]] = []
        self._empty = MinHash(num_perm=_BANDS * _ROWS)

    def add(self, checks: Checks) -> bool:
        """Remember ``checks`` and return True, or return False if they are nearly those of an earlier one."""
        said = said_by(checks)
        sketch = self._empty.copy()
        sketch.update_batch(sorted(said))
        if any(_similar(said, self._said[place]) for place in self._index.query(sketch)):
            return False
        self._index.insert(len(self._said), sketch, check_duplication=False)
        self._said.append(said)
        return True


def said_by(checks: Checks) -> frozenset[bytes]:
    """Return the words of ``checks`` that near duplicates share."""
    phrases = [group.name for group in checks.objects]
    phrases += [each.value for each in checks.attributes if each.name not in _LEFT_OUT]
    phrases.append(checks.text or "")
    found = _WORD.findall(" ".join(phrases).casefold())
    return frozenset(word.encode() for word in found if word not in _JOINING)


def _similar(one: frozenset[bytes], other: frozenset[bytes]) -> bool:
    common = len(one & other)
    return common >= THRESHOLD * (len(one) + len(other) - common)
