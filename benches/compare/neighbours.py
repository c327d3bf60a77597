"""Exact nearest neighbours: faiss (flat, CPU), scikit-learn (brute force) and nomaly, alternating in one run.

    pip install numpy faiss-cpu scikit-learn
    cargo build --release -p nomaly-bench --bin similarity
    python benches/compare/neighbours.py --similarity target/release/similarity
        [--queries 1568,1] [--rows 100000] [--dim 1536] [--k 9] [--threads 2] [--rounds 3]

Uniform random rows, the same file for all sides; the index or bank is built before the time is taken. Each round runs each
side once, nomaly in a process of its own that times its search. Prints seconds, and the peers' seconds over nomaly's:
above 1, nomaly is faster. Checks that at least 99.9 % of the neighbours are the same (rounding may swap near ties: nomaly
compares direct distances, the peers the expanded form).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--similarity", default="target/release/similarity")
    parser.add_argument("--queries", default="1568,1")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--k", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(args.threads)

    import faiss
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    faiss.omp_set_num_threads(args.threads)
    generator = np.random.default_rng(0)
    bank = generator.random((args.rows, args.dim), dtype=np.float32)
    index = faiss.IndexFlatL2(args.dim)
    index.add(bank)
    brute = NearestNeighbors(n_neighbors=args.k, algorithm="brute").fit(bank)
    with tempfile.TemporaryDirectory() as folder:
        bank.tofile(Path(folder, "bank"))
        for count in map(int, args.queries.split(",")):
            queries = generator.random((count, args.dim), dtype=np.float32)
            queries.tofile(Path(folder, "queries"))
            command = [args.similarity, "neighbours", "--bank", f"{folder}/bank", "--queries", f"{folder}/queries"]
            command += ["--dim", str(args.dim), "--k", str(args.k), "--threads", str(args.threads)]
            command += ["--rounds", "1" if count > 1 else "5", "--out", f"{folder}/indices"]

            def nomaly() -> tuple[float, np.ndarray]:
                seconds = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["seconds"]
                return min(seconds), np.fromfile(f"{folder}/indices", dtype=np.uint32).reshape(count, args.k)

            def timed(search) -> tuple[float, np.ndarray]:
                best = float("inf")
                for _ in range(1 if count > 1 else 5):
                    began = time.perf_counter()
                    found = search()
                    best = min(best, time.perf_counter() - began)
                return best, found

            sides = {
                "faiss": lambda: timed(lambda: index.search(queries, args.k)[1]),
                "scikit-learn": lambda: timed(lambda: brute.kneighbors(queries, return_distance=False)),
                "nomaly": nomaly,
            }
            best = dict.fromkeys(sides, float("inf"))
            for turn in range(args.rounds):
                seconds, found = {}, {}
                for name, side in sides.items():
                    seconds[name], found[name] = side()
                    best[name] = min(best[name], seconds[name])
                for name in ("faiss", "scikit-learn"):
                    same = np.mean([len(set(a) & set(b)) / args.k for a, b in zip(found[name], found["nomaly"])])
                    if same < 0.999:
                        sys.exit(f"only {same:.2%} of the neighbours are those of {name}")
                times = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
                print(f"{count} queries, round {turn + 1}: {times}", flush=True)
            for name in ("faiss", "scikit-learn"):
                print(f"{count} queries: {best[name] / best['nomaly']:.2f} x {name}, fastest runs", flush=True)


if __name__ == "__main__":
    main()
