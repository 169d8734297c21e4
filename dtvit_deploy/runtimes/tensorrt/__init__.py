"""TensorRT on a GPU of this machine, and its typed graphs emulated without one."""
