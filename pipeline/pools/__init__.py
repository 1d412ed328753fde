"""Prompt pools: grown from grammars or read from a file of the user."""
