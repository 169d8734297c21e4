"""What a device lacks and the agent brings along."""
