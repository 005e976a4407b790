"""``recflow runs plot``: a run's pictures, drawn from its folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from recflow.errors import RecflowError
from recflow.pictures import draw, draw_map
from recflow.runs import CROSS_VALIDATION, Run


def plot_run(console: Console, path: Path) -> None:
    """Draw all pictures of a run, the map of item vectors too where there can be one, and say where they are.

    Raises:
        RecflowError: If the run has not finished, or there is nothing to draw.
    """
    if (path / CROSS_VALIDATION).is_file():
        raise RecflowError(f"{path} holds the runs of a cross-validation: name one, such as {path}/fold-1.")
    run = Run(path)
    drawn = draw(run, run.metrics)
    try:
        drawn.append(draw_map(run))
    except RecflowError as error:
        console.print(f"no map: {error}", style="yellow", markup=False, highlight=False)
    if not drawn:
        raise RecflowError(f"{path} has nothing to draw: it was not tested, or by an earlier version; fit again.")
    if (path / "tensorboard").is_dir():
        from torch.utils.tensorboard import SummaryWriter

        from recflow.training.record import log_pictures

        with SummaryWriter(str(path / "tensorboard")) as writer:
            log_pictures(writer, drawn)
    for picture in drawn:
        console.print(str(picture), markup=False, highlight=False, soft_wrap=True)
