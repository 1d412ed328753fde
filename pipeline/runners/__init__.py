"""Who runs units: retries, lost workers, resume."""
