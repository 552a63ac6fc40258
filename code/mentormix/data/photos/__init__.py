"""Photographs with the noise of the web: their lists, their files, records."""
