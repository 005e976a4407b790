"""NCF's protocol with both selections: the epoch chosen on validation, and on test as the sources did.

    python benchmarks/both_selections.py experiments/gmf/ncf-ml-1m.yaml --name gmf
    python benchmarks/both_selections.py experiments/ncf/ncf-ml-1m.yaml --model.gmf_run runs/gmf/ncf-ml-1m/gmf ...

Everything after the recipe is what `recflow fit` takes. The second selection reads the test part after every epoch, so
its figure is too good; it is here to stand beside figures that were found in that way, and for nothing else.
"""

from __future__ import annotations

import argparse

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table

from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.training.fit import configure, run_fit
from recflow.training.modules import RecModule

NAMES = ("hit@10_neg99", "ndcg@10_neg99")


class TestEachEpoch(pl.Callback):
    """Reads the test part after every epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the model as it stands."""
        assert isinstance(pl_module, RecModule)
        found = evaluate(pl_module.ranker(), pl_module.data, "test", "ranking", MetricsConfig(ks=(10,))).metrics
        self.epochs.append({name: found[name] for name in NAMES})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a YAML file under experiments/")
    args, settings = parser.parse_known_args()
    configuration, _ = configure(["--config", args.recipe, *settings])
    each = TestEachEpoch()
    configuration.config_init["trainer"]["callbacks"] = [each]
    console = Console()
    run = run_fit(configuration, None, console)

    best = max(range(len(each.epochs)), key=lambda epoch: each.epochs[epoch]["ndcg@10_neg99"])
    table = Table(title=f"{args.recipe}: {run.path}")
    for column in ("epoch chosen on", "epoch", *NAMES):
        table.add_column(column, justify="right")
    chosen = run.metrics["best_epoch"]
    table.add_row(run.metrics["monitor"], str(chosen), *(f"{run.metrics['test'][name]:.4f}" for name in NAMES))
    table.add_row("test", str(best + 1), *(f"{each.epochs[best][name]:.4f}" for name in NAMES))
    console.print(table)


if __name__ == "__main__":
    main()
