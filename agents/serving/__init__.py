"""Using a trained agent: refining prompts, publishing it."""
