"""Generators that run on diffusers: `adapter` does the work, `image` and `video` know the pipelines."""

from pipeline.generators.diffusion.adapter import DiffusionGenerator as DiffusionGenerator
