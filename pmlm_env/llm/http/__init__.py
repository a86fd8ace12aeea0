"""LLMs behind an OpenAI-compatible endpoint."""
