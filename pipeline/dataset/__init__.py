"""The finished dataset as a whole: its manifest, and the proof that it is what it says."""
