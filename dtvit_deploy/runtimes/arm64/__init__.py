"""What an ARM64 core with FP16 arithmetic answers, evaluated on any CPU."""
