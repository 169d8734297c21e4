"""Train DualToken-ViT-T (mix) on the digits at 224×224, from scratch, on a CPU.

    python examples/digits/train.py

writes ``digits.safetensors`` (FP16 weights, about 9 MB) with the model's name, its preprocessing, its classes, the seed and the
held-out accuracy in the file's metadata. Forward passes run in bfloat16 (three times as fast as float32 on a CPU that has
it); weights, optimiser and the exported checkpoint do not depend on it. About 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import data
import msgspec
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.dualtoken.network import DualTokenViT

PREPROCESSING = Preprocessing(resize=224, crop=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SEED = 0
BATCH = 32


def arrays(split: data.Split) -> tuple[torch.Tensor, torch.Tensor]:
    images = [PREPROCESSING.apply(Image.fromarray(image).convert("RGB"))[:1] for image in split.images]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(split.labels)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Small shifts (a tenth of the side), rotations (10°) and scalings (10 %), each image its own."""

    def uniform(spread: float) -> torch.Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * spread

    angle, scale = uniform(0.17), 1 + uniform(0.1)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cosine, -sine, uniform(0.2)], 1), torch.stack([sine, cosine, uniform(0.2)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Black is -1 after normalisation; grid_sample pads with 0, so shift the scale there and back.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


@torch.no_grad()
def accuracy(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    logits = [network(batch.expand(-1, 3, -1, -1)) for batch in images.split(50)]
    return float((torch.cat(logits).argmax(1) == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="greatest learning rate")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("digits.safetensors"))
    options = parser.parse_args()

    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    train, held_out = data.load()
    images, labels = arrays(train)
    test_images, test_labels = arrays(held_out)
    config = DualTokenConfig(dims=(48, 96, 192), depths=(2, 6, 4), num_classes=10, drop_path=0.05)
    network = DualTokenViT(config)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), options.rate, weight_decay=0.04, fused=True)
    steps = options.epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, steps, pct_start=0.15)

    for epoch in range(options.epochs):
        started, losses = time.perf_counter(), []
        network.train()
        for batch in torch.randperm(len(images), generator=generator)[: len(images) // BATCH * BATCH].split(BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(augment(images[batch], generator).expand(-1, 3, -1, -1))
            loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            losses.append(loss.item())
        line = f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}, {time.perf_counter() - started:.0f} s"
        if (epoch + 1) % 6 == 0:
            line += f", held-out {accuracy(network, test_images, test_labels):.1%}"
        print(line, flush=True)

    # What ships is what is measured: the averaged weights, rounded to FP16.
    shipped = {name: value.half() if value.is_floating_point() else value for name, value in average.module.state_dict().items()}
    network.load_state_dict(shipped)
    reached = accuracy(network, test_images, test_labels)
    metadata = {
        "model": "dualtoken-vit-t-mix",
        "num_classes": "10",
        "classes": json.dumps([str(digit) for digit in range(10)]),
        "preprocessing": msgspec.json.encode(PREPROCESSING, order="sorted").decode(),
        "training": f"examples/digits/train.py, seed {SEED}, {options.epochs} epochs, rate {options.rate:g}",
        "held_out_top1": f"{reached:.4f}",
    }
    save_file({name: value.contiguous() for name, value in shipped.items()}, options.out, metadata)
    print(f"held-out top-1 of the FP16 weights: {reached:.1%} of {len(test_labels)}; wrote {options.out}")


if __name__ == "__main__":
    main()
