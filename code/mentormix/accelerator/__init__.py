"""The training step as StableHLO, and JAX code that runs it."""
