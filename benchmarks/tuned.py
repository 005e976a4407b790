"""Tunes several models with an equal budget, and prints the untuned and the tuned test metrics of each as Markdown.

python benchmarks/tuned.py --trials 50
python benchmarks/tuned.py --timeout 30m --data ml-1m --plugins lightgcn ncf ease

A study that is there already goes on with what is left of it: the script may be broken off and started again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGINS = ("lightgcn", "ncf", "bias-mf", "ease")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugins", nargs="+", default=PLUGINS, help="each with experiments/PLUGIN/search.yaml")
    parser.add_argument("--data", help="instead of the files' own: ml-1m")
    parser.add_argument("--trials", help="for each model (default: the files' own, 50)")
    parser.add_argument("--timeout", help="for each model, such as 30m")
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--runs_dir", default="runs")
    args = parser.parse_args()
    folders = {plugin: tune(plugin, args) for plugin in args.plugins}
    print("\n| model | metric | untuned | tuned | trials | seconds |\n|---|---|---|---|---|---|")
    for plugin, folder in folders.items():
        print(row(plugin, folder))


def tune(plugin: str, args: argparse.Namespace) -> Path:
    name = f"{plugin}-{args.data or 'ml-100k'}-budget"
    folder = Path(args.runs_dir) / "tune" / name
    budget = ["--jobs", args.jobs, "--runs_dir", args.runs_dir]
    if args.timeout:
        budget += ["--timeout", args.timeout]
    if (folder / "study.json").is_file():
        given = ["--resume", name]
    else:
        given = ["--config", str(ROOT / "experiments" / plugin / "search.yaml"), "--name", name]
        if args.data:
            given += ["--data", args.data]
            if plugin == "bias-mf":  # the given folds are MovieLens-100K's own
                given += ["--data.split", "ratio", "--data.fold", "null"]
        if args.trials:
            given += ["--trials", args.trials]
    subprocess.run([sys.executable, "-m", "recflow", "tune", *given, *budget], check=True)
    return folder


def row(plugin: str, folder: Path) -> str:
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    metric = study["objectives"][0].removeprefix("val/")
    tested = {}
    for name in ("default", "best"):
        metrics = folder / name / "metrics.json"
        tested[name] = json.loads(metrics.read_text(encoding="utf-8"))["test"][metric] if metrics.is_file() else None
    trials = sum(study["trials"].values())
    shown = {name: "n/a" if value is None else f"{value:.4f}" for name, value in tested.items()}
    return f"| {plugin} | {metric} | {shown['default']} | {shown['best']} | {trials} | {study['seconds']:.0f} |"


if __name__ == "__main__":
    main()
