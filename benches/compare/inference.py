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
import sys

from alternating import compare, serve

FORMATS = ("default", "channels_last")


def worker(network: str, batch: int, layout: str, threads: int) -> None:
    import torch
    from networks import UNet, generator, in_format
    from torch.fx.experimental.optimization import fuse

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = fuse((UNet() if network == "unet" else generator(64)).eval())
    images = torch.rand(batch, 3, 64, 64) if network == "unet" else torch.rand(batch, 100, 1, 1)
    model, images = in_format(layout, model, images)

    def run():
        with torch.inference_mode():
            model(images)

    serve(run)


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
            commands = {layout: [*python, f"{network}-{batch}-{layout}"] for layout in FORMATS}
            commands["nomaly"] = [args.nomaly, network, batch]
            compare(f"{network}, batch {batch}", commands, args.threads, args.rounds)


if __name__ == "__main__":
    main()
