"""Which conditions a text names, one file a language."""
