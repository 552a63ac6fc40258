"""One training step, and the session that repeats it."""
