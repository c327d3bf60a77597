"""Training steps of several networks, in PyTorch and in nomaly, alternating in one run.

    pip install torch
    cargo build --release -p nomaly-bench --bin train_step
    python benches/compare/training.py --nomaly target/release/train_step [--threads 2] [--rounds 7] [--only wrn-10-4,gan]

All steps use Adam.

* `wrn-10-4`, `wrn-16-8`: wide residual networks, cross-entropy over 72 classes, 128 images of 32x32;
* `lite0`: EfficientNet-Lite0 end to end, cross-entropy over 10 classes, 8 images of 224x224;
* `unet`: four levels of 32 to 256 channels and 512 in the middle, squared error, 8 images of 64x64;
* `gan`: the generator and the critic of a DCGAN of width 32, 64 images of 32x32: a step of the critic on real and on made
  images, then one of the generator;
* `transposed`: three 4x4 transposed convolutions of stride 2, 128x8x8 to 3x64x64, squared error, 32 images.

Each side is a process of its own that stays alive: PyTorch in its default and in its channels-last memory format, of which
the better counts, and nomaly. In each round each of them does one step. Prints the medians, the least of each side, and
their ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys

BATCHES = {"wrn-10-4": 128, "wrn-16-8": 128, "lite0": 8, "unet": 8, "gan": 64, "transposed": 32}
FORMATS = ("default", "channels_last")


def networks():
    """Makes the networks by name: a function from the batch to (modules, step)."""
    import torch
    from torch import nn

    class Residual(nn.Module):
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

    def wide(depth, width):
        layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)], 16
        for group in range(3):
            for block in range((depth - 4) // 6):
                layers.append(Residual(inputs, (16 << group) * width, 2 if group and not block else 1))
                inputs = (16 << group) * width
        head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 72)]
        return nn.Sequential(*layers, *head)

    def normalized(inputs, outputs, kernel, stride, groups, active=True):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(outputs, 1e-3), *([nn.ReLU6(inplace=True)] if active else [])]

    class Inverted(nn.Module):
        def __init__(self, inputs, outputs, kernel, stride, expansion):
            super().__init__()
            inner = inputs * expansion
            layers = normalized(inputs, inner, 1, 1, 1) if expansion != 1 else []
            layers += normalized(inner, inner, kernel, stride, inner) + normalized(inner, outputs, 1, 1, 1, active=False)
            self.layers, self.shortcut = nn.Sequential(*layers), stride == 1 and inputs == outputs

        def forward(self, x):
            return x + self.layers(x) if self.shortcut else self.layers(x)

    def lite0():
        stages = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4)]
        layers, inputs = normalized(3, 32, 3, 2, 1), 32
        for kernel, stride, expansion, outputs, blocks in [*stages, (3, 1, 6, 320, 1)]:
            for block in range(blocks):
                layers.append(Inverted(inputs, outputs, kernel, 1 if block else stride, expansion))
                inputs = outputs
        return nn.Sequential(*layers, *normalized(320, 1280, 1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10))

    def double(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [32 << level for level in range(5)]
            self.down = nn.ModuleList(double(a, b) for a, b in zip([3, *widths], widths))
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:4])
            self.join = nn.ModuleList(double(2 * width, width) for width in widths[:4])
            self.last = nn.Conv2d(32, 3, 1)

        def forward(self, x):
            skips = []
            for level in range(4):
                x = self.down[level](x)
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)
            x = self.down[4](x)
            for level in (3, 2, 1, 0):
                x = self.join[level](torch.cat([skips[level], self.up[level](x)], 1))
            return self.last(x)

    def generator():
        layers, inputs = [], 100
        for level, channels in enumerate((128, 64, 32)):
            layers += [nn.ConvTranspose2d(inputs, channels, 4, 2 if level else 1, 1 if level else 0, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            inputs = channels
        return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh())

    def critic():
        layers, inputs = [], 3
        for level, channels in enumerate((32, 64, 128)):
            layers += [nn.Conv2d(inputs, channels, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(channels)] if level else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
            inputs = channels
        return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 0, bias=False))

    def transposed():
        layers, inputs = [], 128
        for channels in (64, 32, 3):
            layers += [nn.ConvTranspose2d(inputs, channels, 4, 2, 1), nn.ReLU(inplace=True)]
            inputs = channels
        return nn.Sequential(*layers[:-1])

    def prepare(modules, tensors, layout):
        if layout == "channels_last":
            modules = [module.to(memory_format=torch.channels_last) for module in modules]
            tensors = [tensor.to(memory_format=torch.channels_last) for tensor in tensors]
        return [module.train() for module in modules], tensors

    def single(module, images, loss_of, layout):
        [module], [images] = prepare([module], [images], layout)
        optimizer = torch.optim.Adam(module.parameters())

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(module(images))
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def classifier(module, side, classes):
        def make(batch, layout):
            labels = torch.randint(0, classes, (batch,))
            loss = lambda logits: nn.functional.cross_entropy(logits, labels)
            return single(module(), torch.rand(batch, 3, side, side) * 2 - 1, loss, layout)

        return make

    def regression(module, shape):
        def make(batch, layout):
            targets = torch.rand(batch, 3, 64, 64)
            loss = lambda images: nn.functional.mse_loss(images, targets)
            return single(module(), torch.rand(batch, *shape) * 2 - 1, loss, layout)

        return make

    def gan(batch, layout):
        tensors = [torch.rand(batch, 3, 32, 32) * 2 - 1, torch.rand(batch, 100, 1, 1) * 2 - 1]
        [makes, judges], [real, latent] = prepare([generator(), critic()], tensors, layout)
        moves = [torch.optim.Adam(module.parameters(), 2e-4, betas=(0.5, 0.999)) for module in (makes, judges)]

        def judge(images, label):
            verdicts = judges(images).flatten()
            return nn.functional.binary_cross_entropy_with_logits(verdicts, torch.full_like(verdicts, label))

        def step():
            made = makes(latent)
            moves[1].zero_grad(set_to_none=True)
            judge(real, 1.0).backward()
            judge(made.detach(), 0.0).backward()
            moves[1].step()
            judges.requires_grad_(False)
            moves[0].zero_grad(set_to_none=True)
            loss = judge(made, 1.0)
            loss.backward()
            moves[0].step()
            judges.requires_grad_(True)
            return loss.item()

        return step

    return {
        "wrn-10-4": classifier(lambda: wide(10, 4), 32, 72),
        "wrn-16-8": classifier(lambda: wide(16, 8), 32, 72),
        "lite0": classifier(lite0, 224, 10),
        "unet": regression(UNet, (3, 64, 64)),
        "gan": gan,
        "transposed": regression(transposed, (128, 8, 8)),
    }


def worker(network: str, layout: str, threads: int) -> None:
    import time

    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = networks()[network](BATCHES[network], layout)
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        print(time.perf_counter() - began, loss, flush=True)


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
    parser.add_argument("--only", default=",".join(BATCHES))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(*args.worker.split("/"), args.threads)
        return

    for network in args.only.split(","):
        python = [sys.executable, __file__, "--threads", str(args.threads), "--worker"]
        sides = {name: Side([*python, f"{network}/{name}"], args.threads) for name in FORMATS}
        sides["nomaly"] = Side([args.nomaly, network, str(BATCHES[network])], args.threads)
        for _ in range(args.rounds):
            for side in sides.values():
                side.step()
        for side in sides.values():
            side.close()
        for what, of in (("median", statistics.median), ("least", min)):
            seconds = {name: of(side.seconds) for name, side in sides.items()}
            best = min(seconds[name] for name in FORMATS)
            print(
                f"{network}, {args.threads} threads, {what}: "
                + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
                + f"; ratio {best / seconds['nomaly']:.2f}"
            )
        print("peak memory: " + ", ".join(f"{name} {side.peak:.0f} MiB" for name, side in sides.items()), flush=True)


if __name__ == "__main__":
    main()
