"""k-centre greedy coreset: the algorithm of anomalib in PyTorch, and nomaly, on the same rows in one run.

    pip install numpy torch
    cargo build --release -p nomaly-bench --bin similarity
    python benches/compare/coreset.py --similarity target/release/similarity
        [--data FILE] [--rows 100000] [--dim 128] [--share 0.1] [--picks 300] [--threads 2] [--rounds 3]

FILE holds rows of `--dim` f32 in native byte order (features of real images: clustered); without it the rows are normally
distributed, the worst case for any pruning. Both sides begin with row 0 and get the rows as they are: anomalib's projection
before the selection is left out. PyTorch is timed over `--picks` picks and extrapolated to all of them (its time a pick is
constant); nomaly runs in full. Checks that nomaly's picks are, one after the other, the farthest rows up to rounding.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--similarity", default="target/release/similarity")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--picks", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import numpy as np
    import torch

    torch.set_num_threads(args.threads)
    if args.data:
        rows = np.fromfile(args.data, dtype=np.float32).reshape(-1, args.dim)[: args.rows]
    else:
        rows = np.random.default_rng(0).standard_normal((args.rows, args.dim), dtype=np.float32)
    count = int(len(rows) * args.share)
    features = torch.from_numpy(rows)

    def anomalib(picks: int) -> float:
        """Seconds a pick of anomalib's `KCenterGreedy`: distances to the last centre, minimum, argmax."""
        nearest, centre = None, 0
        began = time.perf_counter()
        for _ in range(picks):
            distances = torch.nn.functional.pairwise_distance(features, features[centre : centre + 1], p=2).reshape(-1, 1)
            nearest = distances if nearest is None else torch.minimum(nearest, distances)
            centre = int(torch.argmax(nearest).item())
            nearest[centre] = 0
        return (time.perf_counter() - began) / picks

    with tempfile.TemporaryDirectory() as folder:
        rows.tofile(Path(folder, "rows"))
        command = [args.similarity, "coreset", "--rows", f"{folder}/rows", "--dim", str(args.dim), "--start", "0"]
        command += ["--count", str(count), "--threads", str(args.threads), "--out", f"{folder}/indices"]
        ours, theirs = [], []
        for turn in range(args.rounds):
            theirs.append(anomalib(args.picks // args.rounds) * count)
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            ours.append(json.loads(output)["seconds"][0])
            print(f"round {turn + 1}: PyTorch {theirs[-1]:.1f} s (extrapolated), nomaly {ours[-1]:.2f} s", flush=True)
        picks = np.fromfile(f"{folder}/indices", dtype=np.uint32)
    nearest = torch.full((len(rows),), float("inf"))
    for at, (pick, following) in enumerate(zip(picks[: args.picks], picks[1:])):
        nearest = torch.minimum(nearest, ((features - features[int(pick)]) ** 2).sum(1))
        if nearest[int(following)] < nearest.max() * (1 - 1e-5):
            sys.exit(f"pick {at + 1} is not the farthest row")
    print(f"{len(rows)} x {args.dim} to {count}: {min(theirs) / min(ours):.1f} x PyTorch, fastest rounds")


if __name__ == "__main__":
    main()
