"""A plan on many machines: Dask places its stages, moves their results and tells which worker is gone; nothing here is a scheduler."""
