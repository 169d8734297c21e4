"""T2T-ViT (arXiv 2101.11986): images become tokens by overlapping windows and small attention, and tokens a class."""
