"""The trainer: shards in, an aligned model out. It knows no stage."""
