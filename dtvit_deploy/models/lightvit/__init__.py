"""LightViT (arXiv 2207.05557): the network that DualToken-ViT was made from."""
