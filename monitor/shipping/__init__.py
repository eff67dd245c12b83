"""``mailvane ship``: the same collectors on another machine, whose batches go to the core over HTTPS."""
