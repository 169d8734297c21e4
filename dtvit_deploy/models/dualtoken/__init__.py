"""DualToken-ViT, to the parameter."""
