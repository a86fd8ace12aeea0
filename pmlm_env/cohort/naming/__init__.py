"""Finding the conditions that a text names; one module per language."""
