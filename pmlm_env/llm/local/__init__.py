"""LLMs in this process."""
