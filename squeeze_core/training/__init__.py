"""Training: `task.py` says what can be trained, `loop.py` trains it, `squeeze_task.py` is the method's own."""
