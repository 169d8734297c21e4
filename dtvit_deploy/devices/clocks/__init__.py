"""Clocks that are held still while a latency is taken, and given back, whatever becomes of whoever asked.

Those of a processor (`processor`), of a Jetson (`jetson`) and of NVIDIA GPUs in a PC (`cards`) are each a `Setting` (`setting`).
"""
