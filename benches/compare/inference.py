"""Inference of a U-Net (64x64) and of the generator of a DCGAN (32x32), in PyTorch and in nomaly, alternating in one run.

    pip install torch
    cargo build --release -p nomaly-bench --bin inference
    python benches/compare/inference.py --nomaly target/release/inference [--threads 2] [--rounds 41] [--batches 1,8]

The U-Net has four levels of 32 to 256 channels and 512 in the middle, batch norm, and transposed convolutions; the generator
makes images of 100 numbers through 256, 128 and 64 channels. Each side is a process of its own that stays alive: PyTorch in
inference mode, with batch norm folded where torch.fx can, in its default and in its channels-last memory format, of which the
better counts, and nomaly. In each round each of them does one run. Prints the medians, the least of each side, and their
ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys

FORMATS = ("default", "channels_last")
WIDTH = 32


def worker(network: str, batch: int, layout: str, threads: int) -> None:
    import time

    import torch
    from torch import nn
    from torch.fx.experimental.optimization import fuse

    def double(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [WIDTH << level for level in range(5)]
            self.down = nn.ModuleList(double(a, b) for a, b in zip([3, *widths], widths))
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:4])
            self.join = nn.ModuleList(double(2 * width, width) for width in widths[:4])
            self.last = nn.Conv2d(WIDTH, 3, 1)

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

    def dcgan():
        layers, inputs = [], 100
        for level, channels in enumerate((256, 128, 64)):
            stride, padding = (1, 0) if level == 0 else (2, 1)
            layers += [nn.ConvTranspose2d(inputs, channels, 4, stride, padding, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            inputs = channels
        return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh())

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = fuse((UNet() if network == "unet" else dcgan()).eval())
    images = torch.rand(batch, 3, 64, 64) if network == "unet" else torch.rand(batch, 100, 1, 1)
    if layout == "channels_last":
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))

    def run():
        began = time.perf_counter()
        with torch.inference_mode():
            model(images)
        return time.perf_counter() - began

    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(run(), flush=True)


class Side:
    def __init__(self, command, threads):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.seconds = []
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} failed")

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/inference")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        network, batch, layout = args.worker.split("-")
        worker(network, int(batch), layout, args.threads)
        return

    for network in ("unet", "dcgan"):
        for batch in args.batches.split(","):
            python = [sys.executable, __file__, "--threads", str(args.threads), "--worker"]
            sides = {name: Side([*python, f"{network}-{batch}-{name}"], args.threads) for name in FORMATS}
            sides["nomaly"] = Side([args.nomaly, network, batch], args.threads)
            for _ in range(args.rounds):
                for side in sides.values():
                    side.run()
            for side in sides.values():
                side.close()
            for what, of in (("median", statistics.median), ("least", min)):
                times = {name: 1000 * of(side.seconds) for name, side in sides.items()}
                best = min(times[name] for name in FORMATS)
                print(
                    f"{network}, batch {batch}, {args.threads} threads, {what}: "
                    + ", ".join(f"{name} {value:.2f} ms" for name, value in times.items())
                    + f"; ratio {best / times['nomaly']:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
