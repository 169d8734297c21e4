"""The state that a device was in while it was measured: as it is recorded, what it says of a measurement, and what an inference cost in energy."""
