"""Sources of small networks, for the module that a test writes into its user's folder."""

IMAGES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.conv(image).relu().mean((2, 3)))

def image():
    return {"image": torch.zeros(1, 3, 16, 16)}
"""
"""One image in, three scores out."""
WEIGHTS = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (3, 4), "head.bias": (3,)}
"""Shapes of its state."""
PAIR = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.linear = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, image, tokens):
        pooled = image.mean((2, 3)) + self.embed(tokens).mean(1)
        return self.linear(pooled), pooled

def examples():
    # In another order than forward's.
    return {"tokens": torch.zeros(1, 5, dtype=torch.long), "image": torch.ones(1, 4, 8, 8)}
"""
"""Two inputs, one of them integers, and two outputs."""
