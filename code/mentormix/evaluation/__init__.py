"""Averaged weights, every image once, a row per checkpoint."""
