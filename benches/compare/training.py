"""A training step of a wide residual network, in PyTorch and in nomaly, alternating in one run.

    pip install torch
    cargo build --release -p nomaly-bench --bin train_step
    python benches/compare/training.py --nomaly target/release/train_step [--threads 2] [--rounds 7] [--networks 10-4,16-8]

A step is forward, cross-entropy over 72 classes, backward and Adam, on 128 images of 32x32. Each side is a process of its own
that stays alive: PyTorch in its default and in its channels-last memory format, of which the better counts, and nomaly. In
each round each of them does one step. Prints the medians, the least of each side, and their ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys

BATCH, CLASSES = 128, 72
FORMATS = ("default", "channels_last")


def worker(depth: int, width: int, layout: str, threads: int) -> None:
    import time

    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

        def forward(self, x):
            a = torch.relu(self.bn1(x))
            y = self.conv2(torch.relu(self.bn2(self.conv1(a))))
            return y + (x if self.shortcut is None else self.shortcut(a))

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)], 16
    for group in range(3):
        for block in range((depth - 4) // 6):
            layers.append(Block(inputs, (16 << group) * width, 2 if group and not block else 1))
            inputs = (16 << group) * width
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
    model = nn.Sequential(*layers, *head).train()
    images, labels = torch.rand(BATCH, 3, 32, 32) * 2 - 1, torch.randint(0, CLASSES, (BATCH,))
    if layout == "channels_last":
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))
    optimiser = torch.optim.Adam(model.parameters())

    def step():
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
        return time.perf_counter() - began, loss.item()

    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*step(), flush=True)


class Side:
    def __init__(self, command, threads):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.seconds = []
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} failed")

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline().split()[0]))

    def close(self):
        self.process.stdin.close()
        _, _, usage = os.wait4(self.process.pid, 0)
        self.peak = usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/train_step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", default="10-4,16-8")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        depth, width, layout = args.worker.split("-")
        worker(int(depth), int(width), layout, args.threads)
        return

    for network in args.networks.split(","):
        depth, width = network.split("-")
        python = [sys.executable, __file__, "--threads", str(args.threads), "--worker"]
        sides = {name: Side([*python, f"{network}-{name}"], args.threads) for name in FORMATS}
        sides["nomaly"] = Side([args.nomaly, depth, width, str(BATCH), str(CLASSES)], args.threads)
        for _ in range(args.rounds):
            for side in sides.values():
                side.step()
        for side in sides.values():
            side.close()
        for what, of in (("median", statistics.median), ("least", min)):
            seconds = {name: of(side.seconds) for name, side in sides.items()}
            best = min(seconds[name] for name in FORMATS)
            print(
                f"WRN-{network}, {args.threads} threads, {what}: "
                + ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
                + f"; ratio {best / seconds['nomaly']:.2f}"
            )
        print("peak memory: " + ", ".join(f"{name} {side.peak:.0f} MiB" for name, side in sides.items()), flush=True)


if __name__ == "__main__":
    main()
