"""Agent training, with checkpoints, metrics, and cost estimates."""
