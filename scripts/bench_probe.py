"""Times probes beside scikit-learn on the same files, in turns, as whole commands.

    python scripts/bench_probe.py            needs scikit-learn >= 1.5; builds nothing: target/release/temper must be there

Three jobs. scikit-learn does what a typical script would do: StandardScaler and LogisticRegression in each of five
stratified folds, then on all items. Its default stops at a gradient of 1e-4 (lbfgs); `exact` lets it run until
coefficients agree with ours to about 1e-6.

* labelings: 100 items x 2,048, five folds, many shuffled labelings: milliseconds per labeling
* many: 10,000 items x 1,536, five folds and the fit on all: seconds
* tall: 5,000 items x 64, the same
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import sklearn
from sklearn import linear_model, model_selection, preprocessing

TEMPER = pathlib.Path(__file__).resolve().parent.parent / "target/release/temper"
DIRECTIONS = 32


def data(n, d, seed=1):
    """Features of 32 directions with noise on each, as in crates/stats/benches/probe.rs."""
    random = numpy.random.default_rng(seed)
    along = random.uniform(-0.5, 0.5, (n, DIRECTIONS))
    x = random.uniform(-0.5, 0.5, (n, d)) + along @ random.uniform(-0.5, 0.5, (DIRECTIONS, d))
    return x.astype("f4"), along[:, 0] + random.uniform(-0.5, 0.5, n) > 0


def temper(folder, *more):
    out = tempfile.mkdtemp(dir=folder)
    line = [TEMPER, "probe", "fit", "--features", f"{folder}/x.npz:x", "--labels", f"{folder}/x.npz:y", "--out", out]
    start = time.perf_counter()
    subprocess.run([*line, "--resamples", "0", *more], check=True, capture_output=True)
    return time.perf_counter() - start, json.loads(pathlib.Path(out, "fit.json").read_text())["results"][0]["auc"]


def model(exact):
    if not exact:
        return linear_model.LogisticRegression(C=1.0, max_iter=10_000)
    return linear_model.LogisticRegression(C=1.0, max_iter=100_000, tol=1e-10, solver="newton-cholesky")


def peer_folds(x, y, exact):
    p = numpy.zeros(len(y))
    for train, test in model_selection.StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        scaler = preprocessing.StandardScaler().fit(x[train])
        fitted = model(exact).fit(scaler.transform(x[train]), y[train])
        p[test] = fitted.predict_proba(scaler.transform(x[test]))[:, 1]
    return p


def peer(folder, exact):
    start = time.perf_counter()
    with numpy.load(f"{folder}/x.npz") as file:
        x, y = file["x"].astype("f8"), file["y"]
    p = peer_folds(x, y, exact)
    model(exact).fit(preprocessing.StandardScaler().fit_transform(x), y)
    from sklearn.metrics import roc_auc_score

    auc = roc_auc_score(y, p)
    return time.perf_counter() - start, auc


def peer_labelings(folder, count):
    with numpy.load(f"{folder}/x.npz") as file:
        x, y = file["x"].astype("f8"), file["y"]
    random = numpy.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(count):
        peer_folds(x, random.permutation(y), False)
    return (time.perf_counter() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shuffles", type=int, default=1000)
    args = parser.parse_args()
    if not TEMPER.exists():
        sys.exit(f"{TEMPER} is not there: cargo build --release -p headtemper-cli")
    print(f"scikit-learn {sklearn.__version__}, numpy {numpy.__version__}, {args.rounds} rounds in turns, medians")
    with tempfile.TemporaryDirectory() as folder:
        x, y = data(100, 2048)
        numpy.savez(f"{folder}/x.npz", x=x, y=y)
        ours, without, theirs = [], [], []
        for _ in range(args.rounds):
            ours.append(temper(folder, "--shuffles", str(args.shuffles))[0])
            without.append(temper(folder, "--shuffles", "0")[0])
            theirs.append(peer_labelings(folder, 20))
        whole, peer_each = statistics.median(ours), statistics.median(theirs)
        each = (whole - statistics.median(without)) / args.shuffles
        print(f"labelings  100 x 2048: {whole:.2f} s with {args.shuffles} shuffles, whole command; a labeling "
              f"{1e3 * each:.2f} ms, scikit-learn {1e3 * peer_each:.1f} ms: {peer_each / each:.0f}x")
        for name, n, d in [("many", 10_000, 1536), ("tall", 5_000, 64)]:
            x, y = data(n, d)
            numpy.savez(f"{folder}/x.npz", x=x, y=y)
            ours, default, exact = [], [], []
            for _ in range(args.rounds):
                ours.append(temper(folder, "--shuffles", "0"))
                default.append(peer(folder, False))
                exact.append(peer(folder, True))
            t = [statistics.median(one[0] for one in of) for of in (ours, default, exact)]
            print(f"{name:10} {n} x {d}: {t[0]:.2f} s, scikit-learn {t[1]:.2f} s ({t[1] / t[0]:.2f}x), exact {t[2]:.2f} s "
                  f"({t[2] / t[0]:.2f}x); AUC {ours[0][1]:.6f}, {default[0][1]:.6f}, {exact[0][1]:.6f}")


if __name__ == "__main__":
    main()
