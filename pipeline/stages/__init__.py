"""The stages of a build, in ORDER; one file per stage."""
