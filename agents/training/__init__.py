"""Training an agent, and its run folder."""
