"""Finished runs -> tables, pictures, a page."""
