"""Models that say prompts anew. Room for a new one: a row in table.py."""
