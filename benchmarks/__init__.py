"""Measurements behind the numbers in the documents; not part of the package."""
