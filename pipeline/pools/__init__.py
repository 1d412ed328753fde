"""Prompt pools: grown from grammars or read from a file of the user."""

from __future__ import annotations

from pipeline.pools.grown import capacity, categories, grow, version
from pipeline.pools.user import read

__all__ = ["capacity", "categories", "grow", "read", "version"]
