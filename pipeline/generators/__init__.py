"""Models that render prompts. Room for a new one: see README.md here."""
