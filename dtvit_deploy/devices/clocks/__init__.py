"""Clocks that are held still while a latency is taken, and given back, whatever becomes of whoever asked."""
