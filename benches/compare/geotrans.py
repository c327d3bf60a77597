"""GeoTrans in PyTorch, SciPy and scikit-learn, and in nomaly: the same images, network, training and scores.

    pip install torch scipy scikit-learn pillow
    cargo build --release
    python benches/compare/geotrans.py DATA --normal dress --train 100 --test 50 --nomaly target/release/nomaly

DATA is a folder with IDX files (MNIST, Fashion-MNIST) or with train/<class>/ and test/<class>/. For each normal class the
first TRAIN images of it, and one more that nomaly calibrates with, are learned from; the first TEST images of every class
are tested. Both sides see them as PNG files. WRN-10-4, 72 transformations, Adam, batches of 128, L2 2.5e-4. Prints a line of
JSON a class: AUROC of each score, seconds, images a second.
"""

import argparse
import gzip
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

NAMES = {"fashion": "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split()}


def idx(folder, name):
    path = next(p for p in (folder / name, folder / f"{name}.gz") if p.exists())
    data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def copy_images(source, target, normal, train, test):
    """Writes the chosen images as PNG: train/<normal>/, test/<class>/."""
    if next(source.glob("t10k-images*"), None):
        names = NAMES["fashion"] if "fashion" in str(source) else [str(k) for k in range(10)]
        parts = {"train": ("train", names), "test": ("t10k", names)}
        for part, (prefix, names) in parts.items():
            images, labels = idx(source, f"{prefix}-images-idx3-ubyte"), idx(source, f"{prefix}-labels-idx1-ubyte")
            for number, name in enumerate(names):
                if part == "train" and name != normal:
                    continue
                (target / part / name).mkdir(parents=True)
                for at in np.flatnonzero(labels == number)[: train if part == "train" else test]:
                    Image.fromarray(images[at]).save(target / part / name / f"{at:05}.png")
        return
    for part, count in (("train", train), ("test", test)):
        for folder in sorted((source / part).iterdir()):
            if part == "train" and folder.name != normal:
                continue
            (target / part / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                Image.open(path).save(target / part / folder.name / f"{path.stem}.png")


def load(folder):
    """Images in [-1, 1], [n, C, 32, 32], smaller ones on black."""
    out = []
    for path in sorted(folder.iterdir()):
        pixels = np.asarray(Image.open(path), np.float32)
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        rows, columns = 32 - pixels.shape[1], 32 - pixels.shape[2]
        pixels = np.pad(pixels, ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
        out.append(pixels / 127.5 - 1)
    return np.stack(out)


def pytorch(folder, normal, train, epochs, seed, threads, device):
    import torch
    from scipy.special import polygamma, psi
    from sklearn.metrics import roc_auc_score
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.backends.cudnn.allow_tf32 = False

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

        def forward(self, x):
            a = F.relu(self.bn1(x))
            return self.conv2(F.relu(self.bn2(self.conv1(a)))) + self.shortcut(a)

    moves = list(itertools.product((0, 1), (0, -8, 8), (0, -8, 8), range(4)))

    def shift(x, by, axis):
        at = np.pad(np.arange(32), 8, mode="symmetric")[8 + by : 40 + by]
        return x.index_select(axis, torch.from_numpy(at).to(x.device)) if by else x

    def transform(x, move):
        flip, tx, ty, turns = move
        x = x.flip(-1) if flip else x
        return torch.rot90(shift(shift(x, tx, -2), ty, -1), turns, (-2, -1))

    x_train = torch.from_numpy(load(folder / "train" / normal)[:train]).to(device)
    classes = sorted(path.name for path in (folder / "test").iterdir())
    parts = [load(folder / "test" / name) for name in classes]
    x_test = torch.from_numpy(np.concatenate(parts)).to(device)
    anomalous = np.concatenate([[name != normal] * len(part) for name, part in zip(classes, parts)])

    blocks = [Block(16, 64, 1), Block(64, 128, 2), Block(128, 256, 2)]
    stem = nn.Conv2d(x_train.shape[1], 16, 3, 1, 1, bias=False)
    head = [nn.BatchNorm2d(256), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, len(moves))]
    net = nn.Sequential(stem, *blocks, *head).to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    net.to(device)
    optimiser = torch.optim.Adam(net.parameters())
    everything = torch.cat([transform(x_train, move) for move in moves])
    labels = torch.arange(len(moves), device=device).repeat_interleave(len(x_train))
    began = time.perf_counter()
    for _ in range(epochs):
        net.train()
        for at in torch.randperm(len(everything)).to(device).split(128):
            penalty = sum((p**2).sum() for p in net.parameters()) * 2.5e-4
            loss = F.cross_entropy(net(everything[at].to(memory_format=torch.channels_last)), labels[at]) + penalty
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    train_s = time.perf_counter() - began

    @torch.inference_mode()
    def probabilities(x, move):
        net.eval()
        moved = transform(x, move).to(memory_format=torch.channels_last)
        return np.clip(torch.cat([F.softmax(net(part), 1) for part in moved.split(256)]).double().cpu().numpy(), 1e-12, None)

    def inverse(y):
        x = np.where(y >= -2.22, np.exp(y) + 0.5, -1 / (y - psi(1)))
        for _ in range(5):
            x = x - (psi(x) - y) / polygamma(1, x)
        return x

    def dirichlet(p):
        mean_log, f, (n, k) = np.log(p).mean(0), p.mean(0), p.shape
        alpha = f * n * (k - 1) * -psi(1) / (n * (f * np.log(f)).sum() - (f * np.log(p).sum(0)).sum())
        for _ in range(1000):
            after = inverse(psi(alpha.sum()) + mean_log)
            if np.linalg.norm(after - alpha) < 1e-9:
                break
            alpha = after
        return alpha

    scores = {name: np.zeros(len(x_test)) for name in ("dirichlet", "entropy", "simple")}
    test_s, fit_s = 0.0, 0.0
    for number, move in enumerate(moves):
        began = time.perf_counter()
        p = probabilities(x_test, move)
        test_s += time.perf_counter() - began
        began = time.perf_counter()
        alpha = dirichlet(probabilities(x_train, move))
        fit_s += time.perf_counter() - began
        scores["dirichlet"] -= ((alpha - 1) * np.log(p)).sum(1)
        scores["entropy"] -= (p * np.log(p)).sum(1)
        scores["simple"] += 1 - p[:, number]
    return {
        "auroc": {name: round(float(roc_auc_score(anomalous, score)), 4) for name, score in scores.items()},
        "train_s": round(train_s, 1),
        "train_images_per_s": round(epochs * len(everything) / train_s, 1),
        "score_fit_s": round(fit_s, 1),
        "test_ms_per_image": round(1000 * test_s / len(x_test), 2),
    }


def nomaly(binary, folder, normal, train, epochs, seed, threads):
    settings = ["--set", f"epochs={epochs}", "--set", f"holdout={1 / (train + 1)}"]
    command = [binary, "eval", f"{folder}:normal={normal}", "--method", "geotrans", "--seed", str(seed), *settings]
    out = subprocess.run([*command, "--threads", str(threads), "--format", "json", "-q"], check=True, capture_output=True)
    figures = json.loads(out.stdout)
    return {
        "auroc": {name: round(part["auroc"], 4) for name, part in figures["by_part"].items()},
        "fit_s": round(figures["timing"]["fit_s"], 1),
        "test_ms_per_image": round(figures["timing"]["predict_ms_per_image_median"], 2),
        "peak_rss_mib": round(figures["peak_rss_mib"]),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=pathlib.Path)
    arguments.add_argument("--normal", required=True, help="classes, with commas between them")
    arguments.add_argument("--train", type=int, default=100)
    arguments.add_argument("--test", type=int, default=50, help="images of each class")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--seeds", default="0")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--device", default="cpu", help="where PyTorch runs")
    arguments.add_argument("--nomaly", default="target/release/nomaly")
    arguments.add_argument("--only", choices=["nomaly", "pytorch"])
    a = arguments.parse_args()
    for normal, seed in itertools.product(a.normal.split(","), map(int, a.seeds.split(","))):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            copy_images(a.data, folder, normal, a.train + 1, a.test)
            line = {"normal": normal, "seed": seed, "train": a.train, "test": 10 * a.test, "epochs": a.epochs}
            if a.only != "pytorch":
                line["nomaly"] = nomaly(a.nomaly, folder, normal, a.train, a.epochs, seed, a.threads)
            if a.only != "nomaly":
                line["pytorch"] = pytorch(folder, normal, a.train, a.epochs, seed, a.threads, a.device)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
