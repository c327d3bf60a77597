"""Inference of DINOv2 ViT-S/14 at 224x224, in PyTorch and in nomaly, alternating in one run.

    pip install torch timm
    cargo build --release -p nomaly-bench --bin tokens
    python benches/compare/tokens.py --nomaly target/release/tokens [--threads 2] [--rounds 41] [--batches 1,8]

Random weights. Each side is a process of its own that stays alive: timm's model in inference mode (which uses fused
scaled dot product attention), as it is and, with --compile, compiled by torch.compile, of which the better counts; and
nomaly up to the normalized tokens of the patches. In each round each of them does one run. Prints the medians, the
least of each side, and their ratios. On a machine that does other work, the least is what counts.
"""

import argparse
import sys

from alternating import compare, serve


def worker(kind: str, batch: int, size: int, threads: int) -> None:
    import timm
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=size).eval()
    # LayerScale starts at 1e-5; its value does not change the time.
    forward = torch.compile(model.forward_features) if kind == "compiled" else model.forward_features
    images = torch.rand(batch, 3, size, size)

    def run():
        with torch.inference_mode():
            forward(images)

    # torch.compile looks at the first two runs.
    run()
    serve(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which needs a C++ compiler")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        kind, batch = args.worker.split("-")
        worker(kind, int(batch), args.size, args.threads)
        return

    kinds = ["eager", "compiled"] if args.compile else ["eager"]
    for batch in args.batches.split(","):
        python = [sys.executable, __file__, "--threads", str(args.threads), "--size", str(args.size), "--worker"]
        commands = {kind: [*python, f"{kind}-{batch}"] for kind in kinds}
        commands["nomaly"] = [args.nomaly, "dinov2-small", str(args.size), batch]
        compare(f"dinov2-small {args.size}x{args.size}, batch {batch}", commands, args.threads, args.rounds)


if __name__ == "__main__":
    main()
