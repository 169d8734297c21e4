"""The state that a device was in while it was measured: its record, what it says of a figure, and what an inference cost in energy."""
