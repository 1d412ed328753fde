"""Models that label pairs. Room for a new one: see README.md here."""
