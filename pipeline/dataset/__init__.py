"""The finished data set as a whole: its manifest, and the proof that it is what it says."""
