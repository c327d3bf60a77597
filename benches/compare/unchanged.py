"""Whether two builds of nomaly say the same: scores of every method and every scorer, all digits.

usage: unchanged.py OLD NEW [--tiles MAGNETIC_TILE] [--only NAME,NAME] [--work FOLDER]

OLD and NEW are binaries; NEW may be the word `none` to write down what OLD says. Every method is fitted on 24 images of the
demonstration set of one texture and scores 12 more; with --tiles (a folder in MVTec layout) every method that does not
train is also fitted on 60 good images and scores 60. Every scorer is fitted on a table of 200 rows and scores 100. The
fields of a record that both builds have are compared: as text, all digits.
"""

import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile

SETTINGS = {
    "geotrans": ["transformations=rotations", "epochs=2"],
    "adacl": ["epochs=2"],
    "cutpaste": ["epochs=1"],
}
TRAINED = list(SETTINGS)
METHODS = ["mvg", "dn2", "padim", "patchcore", "spade", "features", "patches", *TRAINED]
VARIANTS = {
    "patchcore-sizes": ("patchcore", ["sizes=224,320", "aspect=keep"]),
    "patchcore-official": ("patchcore", ["variant=official", "precision=half", "coreset=0.05"]),
    "mvg-npca": ("mvg", ["reduction=npca"]),
    "features-forest": ("features", ["scorer=isolation-forest", "trees=20"]),
    "padim-tiled": ("padim", ["tiles=2x2", "features=40"]),
    "geotrans-two-step": ("geotrans", ["transformations=rotations", "epochs=1", "normality=two-step"]),
}
# What differs from run to run.
CLOCK = {"timing", "peak_rss_mib", "seconds"}
TEXTURES = ["brick", "grass", "gravel"]


def run(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{binary} {' '.join(map(str, arguments))}: {done.stderr.strip()[-500:]}")
    return done.stdout


def images(binary, model, data, method, settings, seed=0, limits=(24, 12)):
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    limits = ["--max-train", limits[0], "--max-test", limits[1]]
    report = model.with_suffix("")
    run(binary, "eval", data, "--method", method, "--seed", seed, *chosen, *limits, "--report", report)
    with open(report / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    figures = json.loads((report / "evaluation.json").read_text())
    return rows, figures


def table(path, count, seed, columns=6):
    draw = random.Random(seed)
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow([f"c{column}" for column in range(columns)])
        for _ in range(count):
            base = draw.gauss(0, 1)
            out.writerow([f"{base * column / 3 + draw.gauss(0, 1):.6f}" for column in range(columns)])


def rows(binary, model, scorer, normal, test):
    run(binary, "fit", normal, "--set", f"scorer={scorer}", "-o", model)
    return json.loads(run(binary, "score", test, "-m", model, "--format", "json")), {}


def scorers(binary):
    lines = run(binary, "list", "scorers").splitlines()
    return [line.split("  ")[0] for line in lines if line and not line.startswith(" ")]


def timeless(figures):
    """Figures without what differs from run to run."""
    if isinstance(figures, dict):
        return {key: timeless(value) for key, value in figures.items() if key not in CLOCK}
    return [timeless(value) for value in figures] if isinstance(figures, list) else figures


def differences(old, new):
    (old_rows, old_figures), (new_rows, new_figures) = old, new
    if len(old_rows) != len(new_rows):
        yield f"{len(old_rows)} records became {len(new_rows)}"
    for number, (before, after) in enumerate(zip(old_rows, new_rows)):
        for key in before.keys() & after.keys():
            if before[key] != after[key]:
                yield f"record {number}, {key}: {before[key]} became {after[key]}"
        for key in before.keys() - after.keys():
            yield f"record {number} lost {key}"
    before, after = timeless(old_figures), timeless(new_figures)
    for key in before.keys() & after.keys():
        if before[key] != after[key]:
            yield f"{key}: {json.dumps(before[key])[:200]} became {json.dumps(after[key])[:200]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--tiles")
    parser.add_argument("--only")
    parser.add_argument("--work")
    given = parser.parse_args()
    work = pathlib.Path(given.work or tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    normal, test = work / "normal.csv", work / "test.csv"
    table(normal, 200, 1)
    table(test, 100, 2)

    cases = {}
    for method in METHODS:
        textures = TEXTURES[:1] if method in TRAINED else TEXTURES
        for texture in textures:
            data = f"demo:texture={texture}"
            cases[f"{method} {texture}"] = (images, data, method, SETTINGS.get(method, []))
        if given.tiles and method not in TRAINED:
            cases[f"{method} tiles"] = (images, given.tiles, method, [], 0, (60, 60))
    for name, (method, settings) in VARIANTS.items():
        cases[name] = (images, "demo:texture=brick", method, settings)
    for scorer in scorers(given.old):
        cases[f"scorer {scorer}"] = (rows, scorer, normal, test)
    wanted = given.only.split(",") if given.only else None

    differ = 0
    for name, (compute, *arguments) in cases.items():
        if wanted and not any(word in name for word in wanted):
            continue
        said = []
        for role, binary in (("old", given.old), ("new", given.new)):
            kept = work / f"{name.replace(' ', '-')}.{role}.json"
            if role == "old" and kept.exists():
                said.append(json.loads(kept.read_text()))
            elif binary != "none":
                said.append(compute(binary, work / f"{role}-{name.replace(' ', '-')}.nomaly", *arguments))
                kept.write_text(json.dumps(said[-1]))
        found = list(differences(*said)) if len(said) == 2 else []
        differ += bool(found)
        print(f"{name}: {'differs' if found else 'written' if len(said) == 1 else 'the same'}", flush=True)
        for line in found[:5]:
            print(f"    {line}")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
