"""How often is a normal item of a new group flagged? Three p-values for scores that come in groups, by simulation.

    python3 benches/compare/group_p_values.py [--runs 20000] [--seed 0]

Scores are a common part of their group and a part of their own; `share` is the share of the common part in the variance.
`plain` counts scores as if they were independent, `drawn` draws one score of each group, `pooled` counts each group by
the share of its scores. Prints the rate of p <= alpha for each, over groups of equal and of very different sizes.
"""

import argparse

import numpy as np


def simulate(rng, groups, sizes, share, heavy, runs):
    """p-values of `plain`, `drawn` and `pooled`, each [runs]."""
    draw = (lambda size: rng.standard_t(2, size)) if heavy else rng.standard_normal
    common = draw((runs, groups + 1)) * np.sqrt(share)
    own = np.sqrt(1 - share)
    test = common[:, -1] + own * draw(runs)
    reached = np.zeros(runs)
    above = np.zeros(runs)
    drawn = np.zeros(runs)
    for group in range(groups):
        scores = common[:, group, None] + own * draw((runs, sizes[group]))
        over = scores >= test[:, None]
        reached += over.mean(axis=1)
        above += over.sum(axis=1)
        drawn += over[:, 0]
    return (1 + above) / (sum(sizes) + 1), (1 + drawn) / (groups + 1), (1 + reached) / (groups + 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    alphas = (0.01, 0.05, 0.1, 0.2)
    print("| groups | sizes | share | tail | alpha | plain | drawn | pooled |")
    print("|---|---|---|---|---|---|---|---|")
    worst = {alpha: 0.0 for alpha in alphas}
    for groups in (5, 10, 20, 50, 100):
        for name, sizes in (("3", [3] * groups), ("10", [10] * groups), ("1 to 20", [1 + 19 * (g % 2) for g in range(groups)])):
            for share in (0.0, 0.5, 0.95):
                for heavy in (False, True):
                    p = simulate(rng, groups, sizes, share, heavy, args.runs)
                    for alpha in alphas:
                        if alpha < 1 / (groups + 1):
                            continue
                        rates = [float((values <= alpha + 1e-12).mean()) for values in p]
                        worst[alpha] = max(worst[alpha], rates[2] / alpha)
                        tail = "t(2)" if heavy else "normal"
                        cells = " | ".join(f"{100 * rate:.1f}" for rate in rates)
                        print(f"| {groups} | {name} | {share} | {tail} | {100 * alpha:g} % | {cells} |")
    for alpha, ratio in worst.items():
        print(f"largest rate of `pooled` at {100 * alpha:g} %: {ratio:.2f} times alpha")


if __name__ == "__main__":
    main()
