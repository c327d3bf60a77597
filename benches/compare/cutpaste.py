"""CutPaste in PyTorch and scikit-learn, and in nomaly: the same images, network, training and score.

    pip install torch torchvision scikit-learn pillow
    cargo build --release
    python benches/compare/cutpaste.py DATA --nomaly target/release/nomaly

DATA is a folder with train/good/ and test/<kind>/. ResNet-18 from the start on all three classes of every image but a tenth,
which tells the accuracy; then a Gaussian on the average of its last layer. PyTorch resizes with Pillow, and draws its patches
on the device; random numbers differ. Prints a line of JSON a seed: AUROC, the share of held-out examples told rightly, seconds.
"""

import argparse
import json
import math
import pathlib
import re
import subprocess
import sys
import time

import numpy as np


def load(folder, size):
    """Greyscale images in [0, 1], [n, 1, size, size]."""
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [np.asarray(Image.open(path).convert("L").resize((size, size), Image.BILINEAR), np.float32) for path in paths]
    return np.stack(images)[:, None] / 255


class Classes:
    """Makes examples of the three classes: 0 as it is, 1 with a patch of itself, 2 with a thin turned strip of itself."""

    def __init__(self, size, device, seed):
        import torch

        self.torch, self.size, self.device = torch, size, device
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(seed)
        at = torch.arange(size, device=device, dtype=torch.float32)
        self.y, self.x = torch.meshgrid(at, at, indexing="ij")

    def uniform(self, count, low, high):
        numbers = self.torch.rand(count, 1, 1, generator=self.generator, device=self.device)
        return low + (high - low) * numbers

    def take(self, images, y, x):
        """The images read at these places, the edges repeated."""
        last = self.size - 1
        at = y.clamp(0, last).long() * self.size + x.clamp(0, last).long()
        return images.flatten(1).gather(1, at.flatten(1)).view(-1, self.size, self.size)

    def vary(self, images):
        n, most = len(images), self.size // 32
        down, right = (self.uniform(n, -most, most + 1).floor() for _ in range(2))
        images = self.take(images, self.y - down, self.x - right) * self.uniform(n, 0.9, 1.1)
        mean = images.mean((1, 2), keepdim=True)
        return (mean + self.uniform(n, 0.9, 1.1) * (images - mean)).clamp(0, 1)

    def patch(self, images):
        n, size, torch = len(images), self.size, self.torch
        area = self.uniform(n, 0.02, 0.15) * size * size
        aspect = torch.where(self.uniform(n, 0, 1) < 0.5, self.uniform(n, 0.3, 1), self.uniform(n, 1, 3.3))
        width, height = ((area * aspect).sqrt().floor().clamp(1, size), (area / aspect).sqrt().floor().clamp(1, size))
        from_x, to_x = ((self.uniform(n, 0, 1) * (size - width + 1)).floor() for _ in range(2))
        from_y, to_y = ((self.uniform(n, 0, 1) * (size - height + 1)).floor() for _ in range(2))
        x, y = self.x - to_x, self.y - to_y
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return inside.float(), self.take(images, y + from_y, x + from_x)

    def scar(self, images):
        n, size, torch = len(images), self.size, self.torch
        unit = max(size / 256, 0.25)
        half_width, half_height = 0.5 * self.uniform(n, 2, 16) * unit, 0.5 * self.uniform(n, 10, 25) * unit
        angle = self.uniform(n, -math.pi / 4, math.pi / 4)
        from_x, from_y = (self.uniform(n, 0.1, 0.9) * size for _ in range(2))
        to_x, to_y = (self.uniform(n, 0.15, 0.85) * size for _ in range(2))
        dx, dy = self.x + 0.5 - to_x, self.y + 0.5 - to_y
        across = dx * torch.cos(angle) - dy * torch.sin(angle)
        along = dx * torch.sin(angle) + dy * torch.cos(angle)
        inside = torch.minimum(half_width + 0.5 - across.abs(), half_height + 0.5 - along.abs()).clamp(0, 1)
        return inside, self.take(images, from_y + along, from_x + across)

    def make(self, images, kinds, training):
        """Inputs of the network in [-1, 1], [n, 3, size, size], of images [n, 1, size, size]."""
        torch, images = self.torch, images[:, 0]
        images = self.vary(images) if training else images
        kinds = kinds.view(-1, 1, 1)
        (patch_inside, patch), (scar_inside, scar) = self.patch(images), self.scar(images)
        inside = torch.where(kinds == 1, patch_inside, torch.where(kinds == 2, scar_inside, torch.zeros_like(images)))
        n = len(images)
        pasted = torch.where(kinds == 1, patch, scar) * self.uniform(n, 0.9, 1.1)
        pasted = (0.5 + self.uniform(n, 0.9, 1.1) * (pasted - 0.5)).clamp(0, 1)
        return as_input(((1 - inside) * images + inside * pasted)[:, None])


def as_input(images):
    return (2 * images - 1).expand(-1, 3, -1, -1)


def pytorch(a, seed):
    import torch
    import torchvision
    from sklearn.covariance import LedoitWolf
    from sklearn.metrics import roc_auc_score
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(seed)
    torch.set_num_threads(a.threads)
    images = torch.from_numpy(load(a.data / "train", a.size)).to(a.device)
    order = torch.randperm(len(images)).to(a.device)
    held_out, train = images[order[: len(images) // 10]], images[order[len(images) // 10 :]]
    classes = Classes(a.size, a.device, seed)

    net = torchvision.models.resnet18(weights=None)
    classifier, net.fc = nn.Linear(512, 3), nn.Identity()
    for module in [*net.modules(), classifier]:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    net.to(a.device, memory_format=torch.channels_last)
    classifier.to(a.device)
    parameters = [*net.parameters(), *classifier.parameters()]
    if a.optimiser == "adam":
        optimiser = torch.optim.Adam(parameters, a.rate, weight_decay=6e-5)
    else:
        optimiser = torch.optim.SGD(parameters, a.rate, momentum=0.9, weight_decay=6e-5)
    examples = 3 * len(train)
    steps = a.epochs * math.ceil(examples / a.batch)
    fall = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    began = time.perf_counter()
    net.train()
    for _ in range(a.epochs):
        for at in torch.randperm(examples).to(a.device).split(a.batch):
            kinds = at % 3
            inputs = classes.make(train[at // 3], kinds, True).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(classifier(net(inputs)), kinds)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            fall.step()
    train_s = time.perf_counter() - began

    net.eval()
    with torch.inference_mode():
        kinds = torch.arange(3, device=a.device).repeat_interleave(len(held_out))
        rounds = [classifier(net(classes.make(held_out.repeat(3, 1, 1, 1), kinds, False))) for _ in range(8)]
        told = np.mean([(logits.argmax(1) == kinds).float().mean().item() for logits in rounds])

        def features(images):
            parts = torch.as_tensor(images).to(a.device).split(128)
            return torch.cat([net(as_input(part)) for part in parts]).double().cpu().numpy()

        gaussian = LedoitWolf().fit(features(train))
        kinds = sorted((a.data / "test").iterdir())
        parts = [load(folder, a.size) for folder in kinds]
        anomalous = np.concatenate([[folder.name != "good"] * len(part) for folder, part in zip(kinds, parts)])
        scores = gaussian.mahalanobis(features(np.concatenate(parts)))
    return {
        "auroc": round(float(roc_auc_score(anomalous, scores)), 4),
        "told_rightly": round(float(told), 3),
        "train_s": round(train_s, 1),
        "examples_per_s": round(a.epochs * examples / train_s, 1),
    }


def nomaly(a, seed):
    pairs = {"optimiser": a.optimiser, "rate": a.rate, "batch_size": a.batch, "epochs": a.epochs, "input_size": a.size, "holdout": 0.1}
    settings = [word for pair in pairs.items() for word in ("--set", "=".join(map(str, pair)))]
    command = [a.nomaly, "eval", a.data, "--method", "cutpaste", *settings]
    command += ["--seed", str(seed), "--threads", str(a.threads), "--format", "json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(out.stdout)
    told = re.search(r"([\d.]+) % of which are told rightly", out.stderr)
    return {
        "auroc": round(figures["image"]["auroc"], 4),
        "told_rightly": round(float(told[1]) / 100, 3),
        "fit_s": round(figures["timing"]["fit_s"], 1),
        "predict_ms_per_image": round(figures["timing"]["predict_ms_per_image_median"], 2),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=pathlib.Path)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--optimiser", choices=["adam", "sgd"], default="adam")
    arguments.add_argument("--rate", type=float, default=0.001)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--epochs", type=int, default=100)
    arguments.add_argument("--seeds", default="0")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--device", default="cpu", help="where PyTorch runs")
    arguments.add_argument("--nomaly", default="target/release/nomaly")
    arguments.add_argument("--only", choices=["nomaly", "pytorch"])
    a = arguments.parse_args()
    for seed in map(int, a.seeds.split(",")):
        line = {"seed": seed, "size": a.size, "optimiser": a.optimiser, "rate": a.rate, "batch": a.batch, "epochs": a.epochs}
        if a.only != "pytorch":
            line["nomaly"] = nomaly(a, seed)
        if a.only != "nomaly":
            line["pytorch"] = pytorch(a, seed)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
