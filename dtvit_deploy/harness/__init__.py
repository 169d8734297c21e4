"""Arrays in, figures out: parity, layers, accuracy, latency, verdict. Imports no framework, so that a device can run it."""
