"""Every scorer beside scikit-learn and PyOD: the same rows, the same settings, alternating in one run.

    pip install numpy scipy scikit-learn pyod
    cargo xtask bench scorers [--python PROGRAM] [--images DATA] [--rows 10000,100000] [--only gmm,lof] [--json FILE]

Each fit runs in a process of its own: seconds to fit and to score as the process takes them (without starting up, importing and
reading files, and after a fit of 300 rows on both sides), and the peak of its resident memory. AUROC is computed here for both sides. Data: two moons and clusters
(scikit-learn's generators, with uniform outliers), digits (one class against the others), the pooled features of a
folder of images in MVTec layout, and for the timings a mixture of Gaussians of any number of rows. `ratio` is the other
program's seconds over nomaly's: above 1, nomaly is faster.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# name in the tables, scorer, settings, the peer (see `peer`).
PAIRS = [
    ("gaussian", "gaussian", ["covariance=empirical"], "sklearn.EmpiricalCovariance"),
    ("gaussian, shrunk", "gaussian", ["covariance=ledoit-wolf"], "sklearn.LedoitWolf"),
    ("gmm", "gmm", ["components=8"], "sklearn.GaussianMixture"),
    ("kde", "kde", ["bandwidth=1.0"], "sklearn.KernelDensity"),
    ("histogram", "histogram", ["bins=10"], "pyod.HBOS"),
    ("one-class-svm", "one-class-svm", ["nu=0.05"], "sklearn.OneClassSVM"),
    ("svdd", "svdd", ["nu=0.05"], "sklearn.OneClassSVM"),
    ("neighbours", "neighbours", ["k=5", "distance=l2", "aggregation=kth"], "pyod.KNN"),
    ("lof", "lof", ["k=20"], "sklearn.LocalOutlierFactor"),
    ("clustering", "clustering", [], "sklearn.KMeans"),
    ("cblof", "cblof", [], "pyod.CBLOF"),
    ("isolation-forest", "isolation-forest", [], "sklearn.IsolationForest"),
    ("extended-isolation-forest", "extended-isolation-forest", [], "isotree.IsolationForest"),
    ("pca", "pca", ["components=16"], "sklearn.PCA"),
    ("robust-pca", "robust-pca", ["components=16"], "numpy.pursuit"),
    ("kernel-pca", "kernel-pca", ["components=16"], "pyod.KPCA"),
    ("random-projections", "random-projections", [], "pyod.LODA"),
    ("sparse-coding", "sparse-coding", [], "sklearn.MiniBatchDictionaryLearning"),
]

PEER = "--peer"


def components(dim: int) -> int:
    """The components of the subspaces, on both sides."""
    return 16 if dim > 16 else max(1, dim // 2)


def pursuit(data):
    """Principal component pursuit as it is usually written: a singular value decomposition of the whole matrix in each round."""
    import numpy as np

    price = 1 / np.sqrt(max(data.shape))
    norm, spectral = np.linalg.norm(data), np.linalg.norm(data, 2)
    dual = data / max(spectral, np.abs(data).max() / price)
    penalty = 1.25 / spectral
    most, low = penalty * 1e7, np.zeros_like(data)
    while True:
        target = data - low + dual / penalty
        sparse = np.sign(target) * np.maximum(np.abs(target) - price / penalty, 0)
        left, values, right = np.linalg.svd(data - sparse + dual / penalty, full_matrices=False)
        low = (left * np.maximum(values - 1 / penalty, 0)) @ right
        rest = data - low - sparse
        if np.linalg.norm(rest) < 1e-7 * norm:
            return low
        dual += penalty * rest
        penalty = min(penalty * 1.5, most)


def fit_dictionary(train, dim: int):
    """A dictionary, and a Gaussian of error and sparsity of the codes of rows that it has not seen."""
    import numpy as np
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import MiniBatchDictionaryLearning

    order = np.random.default_rng(0).permutation(len(train))
    held_out = len(train) * 3 // 10
    learned, held = train[order[held_out:]][:10000], train[order[:held_out]][:10000]
    mean = learned.mean(0)
    price = 1.2 * np.sqrt(((learned - mean) ** 2).mean())
    atoms = max(1, min(2 * dim, 256, len(learned) // 2))
    coder = MiniBatchDictionaryLearning(
        atoms, alpha=price, transform_alpha=price, transform_algorithm="lasso_cd", fit_algorithm="cd", random_state=0, n_jobs=-1
    ).fit(learned - mean)

    def features(rows):
        rows = rows - mean
        codes = coder.transform(rows)
        return np.c_[((codes @ coder.components_ - rows) ** 2).sum(1), np.abs(codes).sum(1)]

    found = features(held)
    size = found.mean(0)
    density = LedoitWolf().fit(np.log1p(found / size))
    return lambda rows: np.sqrt(density.mahalanobis(np.log1p(features(rows) / size)))


def fit_peer(name: str, train, dim: int):
    """The fitted peer as a function from rows to scores, higher = more anomalous."""
    import numpy as np

    library, kind = name.split(".")
    if library == "pyod":
        if kind == "HBOS":
            from pyod.models.hbos import HBOS as model
            detector = model(n_bins=10)
        elif kind == "KNN":
            from pyod.models.knn import KNN as model
            detector = model(n_neighbors=5, method="largest", n_jobs=-1)
        elif kind == "CBLOF":
            from pyod.models.cblof import CBLOF as model
            detector = model(random_state=0, n_jobs=-1)
        elif kind == "KPCA":
            from pyod.models.kpca import KPCA as model
            detector = model(n_components=components(dim), random_state=0, n_jobs=-1)
        else:
            from pyod.models.loda import LODA as model
            detector = model()
        detector.fit(train)
        return detector.decision_function
    if library == "numpy":
        centre = np.median(train, 0)
        low = pursuit(train - centre)
        centre = centre + low.mean(0)
        directions = np.linalg.svd(low - low.mean(0), full_matrices=False)[2][: components(dim)]
        return lambda rows: np.linalg.norm(rows - centre - (rows - centre) @ directions.T @ directions, axis=1)
    if kind == "MiniBatchDictionaryLearning":
        return fit_dictionary(train, dim)
    if library == "isotree":
        from isotree import IsolationForest
        forest = IsolationForest(ndim=dim, ntrees=100, sample_size=256, missing_action="fail", random_seed=0, nthreads=-1)
        forest.fit(train)
        return forest.predict
    if kind in ("EmpiricalCovariance", "LedoitWolf"):
        import sklearn.covariance
        return getattr(sklearn.covariance, kind)().fit(train).mahalanobis
    if kind == "GaussianMixture":
        from sklearn.mixture import GaussianMixture
        mixture = GaussianMixture(8, random_state=0).fit(train)
        return lambda rows: -mixture.score_samples(rows)
    if kind == "KernelDensity":
        from sklearn.neighbors import KernelDensity
        density = KernelDensity(bandwidth=1.0).fit(train)
        return lambda rows: -density.score_samples(rows)
    if kind == "OneClassSVM":
        from sklearn.svm import OneClassSVM
        machine = OneClassSVM(nu=0.05).fit(train)
        return lambda rows: -machine.decision_function(rows)
    if kind == "LocalOutlierFactor":
        from sklearn.neighbors import LocalOutlierFactor
        factor = LocalOutlierFactor(20, novelty=True, n_jobs=-1).fit(train)
        return lambda rows: -factor.score_samples(rows)
    if kind == "KMeans":
        from sklearn.cluster import KMeans
        clusters = KMeans(8, n_init=1, random_state=0).fit(train)
        return lambda rows: clusters.transform(rows).min(1)
    if kind == "IsolationForest":
        from sklearn.ensemble import IsolationForest
        forest = IsolationForest(n_estimators=100, max_samples=min(256, len(train)), random_state=0, n_jobs=-1).fit(train)
        return lambda rows: -forest.score_samples(rows)
    from sklearn.decomposition import PCA

    subspace = PCA(components(dim)).fit(train)
    return lambda rows: np.linalg.norm(rows - subspace.inverse_transform(subspace.transform(rows)), axis=1)


def peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def run_peer(name: str, train_file: str, test_file: str, dim: int, out: str) -> None:
    """What the peer's process does."""
    import numpy as np

    read = lambda path: np.fromfile(path, "<f4").reshape(-1, dim).astype(float)
    train, test = read(train_file), read(test_file)
    import warnings

    warnings.filterwarnings("ignore")
    with contextlib.suppress(Exception):
        fit_peer(name, train[:300], dim)(test[:10])  # what is imported late, and compiled, is not part of the fit either
    began = time.perf_counter()
    score = fit_peer(name, train, dim)
    fitted = time.perf_counter()
    scores = np.asarray(score(test), float)
    ended = time.perf_counter()
    scores.tofile(out)
    print(json.dumps({"fit_s": fitted - began, "score_s": ended - fitted, "peak_rss_mib": peak_mib()}))


def run(command: list[str], limit: float, env: dict[str, str], out: Path):
    """The figures that a process prints and the scores that it writes, or why there are none."""
    import numpy as np

    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, check=False)
    except subprocess.TimeoutExpired:
        return None, f"over {limit:.0f} s"
    if ended.returncode != 0:
        lines = (ended.stderr or "failed").strip().splitlines()
        return None, lines[-1][:110] if lines else "failed"
    return json.loads(ended.stdout.strip().splitlines()[-1]) | {"scores": np.fromfile(out, "<f8")}, None


def data_sets(args, folder: Path):
    """Name, training rows, test rows, labels of the test rows, and whether the rows are for timing."""
    import numpy as np
    from sklearn.datasets import load_digits, make_blobs, make_moons

    generator = np.random.default_rng(0)
    outliers = lambda rows, n: generator.uniform(rows.min(0) - 1, rows.max(0) + 1, (n, rows.shape[1]))
    moons, _ = make_moons(2000, noise=0.05, random_state=0)
    clusters, _ = make_blobs(2000, 8, centers=5, cluster_std=[0.5, 0.7, 1.0, 1.3, 1.6], random_state=0)
    for name, rows in (("two moons", moons), ("clusters", clusters)):
        test = np.concatenate([rows[1000:], outliers(rows[:1000], 200)])
        yield name, rows[:1000], test, np.r_[np.zeros(1000), np.ones(200)], False
    digits = load_digits()
    rows, is_normal = digits.data / 16, digits.target == 3
    normal = rows[is_normal]
    half = len(normal) // 2
    yield (
        "digits, 3 is normal",
        normal[:half],
        np.concatenate([normal[half:], rows[~is_normal]]),
        np.r_[np.zeros(len(normal) - half), np.ones((~is_normal).sum())],
        False,
    )
    if args.images:
        out = folder / "images"
        told = json.loads(subprocess.run([args.features, args.images, out, args.device], check=True, stdout=subprocess.PIPE).stdout)
        read = lambda part: np.fromfile(f"{out}-{part}.f32", "<f4").reshape(-1, told["dim"])
        labels = np.fromfile(f"{out}-test.label", np.uint8)
        yield f"deep features of {Path(args.images).name}", read("train"), read("test"), labels, False
    d = args.columns
    for count in args.rows:
        mixing = [generator.normal(size=(d, d)) * np.linspace(1, 0.1, d) for _ in range(5)]
        centres = generator.normal(size=(5, d)) * 6

        def draw(n):
            kind = generator.integers(0, 5, n)
            rows = np.empty((n, d))
            for i in range(5):
                rows[kind == i] = generator.normal(size=((kind == i).sum(), d)) @ mixing[i].T * 0.5 + centres[i]
            return rows

        train, test = draw(count), draw(count)
        labels = np.zeros(count)
        labels[-count // 10 :] = 1
        test[labels == 1] += generator.normal(size=(int(labels.sum()), d)) * 1.2
        yield f"{count} x {d}", train, test, labels, True


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == PEER:
        return run_peer(*sys.argv[2:5], int(sys.argv[5]), sys.argv[6])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nomaly", default="target/release/examples/time_scorer")
    parser.add_argument("--features", default="target/release/pooled_features")
    parser.add_argument("--images", help="a data set in MVTec layout")
    parser.add_argument("--device", default="cpu", help="where the network of --images runs")
    parser.add_argument("--rows", default="10000", type=lambda text: [int(n) for n in text.split(",") if n])
    parser.add_argument("--columns", default=64, type=int)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", default=2, type=int)
    parser.add_argument("--limit", default=300.0, type=float, help="seconds after which a process is given up")
    parser.add_argument("--alone", action="store_true", help="nomaly without the others: how it grows")
    parser.add_argument("--sizes-only", action="store_true", help="only the rows for timing")
    parser.add_argument("--json", help="where the figures go")
    args = parser.parse_args()
    env = dict(os.environ)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        env[variable] = str(args.threads)
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)

    from sklearn.metrics import roc_auc_score

    only = set(filter(None, args.only.split(",")))
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for data, train, test, labels, timed in data_sets(args, folder):
            if args.sizes_only and not timed:
                continue
            train.astype("<f4").tofile(folder / "train")
            test.astype("<f4").tofile(folder / "test")
            dim = train.shape[1]
            print(f"\n### {data}: {len(train)} rows to fit, {len(test)} to score, {dim} columns\n")
            print("| scorer | AUROC | peer | its AUROC | fit s | its fit s | ratio | score s | its score s | ratio | MiB | its MiB |")
            print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
            for title, scorer, settings, peer in PAIRS:
                if only and scorer not in only:
                    continue
                if "components=16" in settings:
                    settings = [f"components={components(dim)}"]
                files = [str(folder / "train"), str(folder / "test"), str(dim)]
                rust = [args.nomaly, scorer, *files, *settings]
                own, why = run(rust, args.limit, env | {"NOMALY_SCORES": str(folder / "own")}, folder / "own")
                other, why_not = None, "–"
                if peer and not args.alone:
                    python = [sys.executable, __file__, PEER, peer, *files, str(folder / "other")]
                    other, why_not = run(python, args.limit, env, folder / "other")
                auroc = lambda side: roc_auc_score(labels, side["scores"]) if side else None
                row = {"data": data, "rows": len(train), "columns": dim, "scorer": title, "settings": settings, "peer": peer}
                for side, found, reason in (("nomaly", own, why), ("other", other, why_not)):
                    row[side] = (
                        {key: value for key, value in found.items() if key != "scores"} | {"auroc": auroc(found)}
                        if found
                        else {"failed": reason}
                    )
                figures.append(row)
                show = lambda side, key, digits: f"{side[key]:.{digits}f}" if side else "–"
                ratio = lambda key: f"{other[key] / max(own[key], 1e-9):.1f}" if own and other else "–"
                cells = [title, f"{auroc(own):.4f}" if own else why, peer or "–", f"{auroc(other):.4f}" if other else why_not]
                for key in ("fit_s", "score_s"):
                    cells += [show(own, key, 3), show(other, key, 3), ratio(key)]
                cells += [show(own, "peak_rss_mib", 0), show(other, "peak_rss_mib", 0)]
                print("| " + " | ".join(cells) + " |", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
