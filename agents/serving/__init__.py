"""Using a trained agent: refining prompts with it, and publishing it."""
