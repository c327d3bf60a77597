"""Training steps of several networks, in PyTorch and in nomaly, alternating in one run.

    pip install torch
    cargo build --release -p nomaly-bench --bin train_step
    python benches/compare/training.py --nomaly target/release/train_step [--threads 2] [--rounds 7] [--only gan,unet]

All steps use Adam.

* `wrn-10-4`, `wrn-16-8`: wide residual networks, cross-entropy over 72 classes, 128 images of 32x32;
* `lite0`: EfficientNet-Lite0 end to end, cross-entropy over 10 classes, 8 images of 224x224;
* `unet`: four levels of 32 to 256 channels and 512 in the middle, squared error, 8 images of 64x64;
* `gan`: the generator and the critic of a DCGAN of width 32, 64 images of 32x32: a step of the critic on real and on
  made images, then one of the generator;
* `transposed`: three 4x4 transposed convolutions of stride 2, 128x8x8 to 3x64x64, squared error, 32 images.

Each side is a process of its own that stays alive: PyTorch in its default and in its channels-last memory format, of
which the better counts, and nomaly. In each round each of them does one step. Prints the medians, the least of each
side, and their ratios.
"""

import argparse
import sys

from alternating import compare, serve

BATCHES = {"wrn-10-4": 128, "wrn-16-8": 128, "lite0": 8, "unet": 8, "gan": 64, "transposed": 32}
FORMATS = ("default", "channels_last")


def steps():
    """By name, a function from the batch and the memory format to one that does a step and returns the loss."""
    import torch
    from networks import UNet, critic, generator, in_format, transposed
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

    def single(module, images, loss_of, layout):
        module, images = in_format(layout, module.train(), images)
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
        real, latent = torch.rand(batch, 3, 32, 32) * 2 - 1, torch.rand(batch, 100, 1, 1) * 2 - 1
        makes, judges, real, latent = in_format(layout, generator(32).train(), critic(32).train(), real, latent)
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
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    serve(steps()[network](BATCHES[network], layout))


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
        commands = {layout: [*python, f"{network}/{layout}"] for layout in FORMATS}
        commands["nomaly"] = [args.nomaly, network, str(BATCHES[network])]
        compare(network, commands, args.threads, args.rounds)


if __name__ == "__main__":
    main()
