"""What `squeeze bench` measures, one file a claim. Each has `measure()`, which returns numbers by name."""
