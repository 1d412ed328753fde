"""Builds visual preference datasets: prompts, generate, pair, judge, agree, shard."""
