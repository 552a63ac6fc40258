"""The training step as StableHLO, and JAX running it."""
