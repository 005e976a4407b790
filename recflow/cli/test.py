"""``recflow test``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run
from recflow.errors import RecflowError


def run(argv: Sequence[str]) -> int:
    """Measure a run's bundle on the test part of its own data."""
    parser = Parser(prog="recflow test", description="Measure a run on its test part again; the run is left as it is.")
    add_run_option(parser)
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)
    chosen.require_finished()

    from recflow.cli.tables import beyond_table, print_metrics
    from recflow.data.dataset import config_of, prepare
    from recflow.metrics.evaluate import MetricsConfig, evaluate

    data = prepare(config_of(chosen.config["data"]))
    recorded = chosen.metrics["header"]
    differing = [
        name for name in ("sha256", "filter", "split", "users", "items") if data.header()[name] != recorded[name]
    ]
    if differing:
        raise RecflowError(
            f"{data.name} is no longer what {chosen.path} was fitted on: {', '.join(differing)} differ; fit again."
        )
    settings = chosen.config["metrics"]
    config = MetricsConfig(ks=tuple(settings["ks"]), auc=settings["auc"])
    measured = evaluate(chosen.recommender.ranker, data, "test", chosen.metrics["task"], config)
    rows = {chosen.metrics["plugin"]: measured.metrics}
    if "test" in chosen.metrics:
        rows["as recorded"] = chosen.metrics["test"]
    print_metrics(console, rows, f"test part of {data.name}")
    if (table := beyond_table(rows, "beyond accuracy")) is not None:
        console.print(table)
    left_out = f" ({measured.skipped:,} without a relevant item left out)" if measured.skipped else ""
    console.print(
        f"[dim]means over {measured.users:,} users{left_out}; {recorded['split']}; {recorded['candidates']}[/]"
    )
    return 0
