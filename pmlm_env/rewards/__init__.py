"""What an edited prompt earns."""
