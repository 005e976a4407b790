"""The entry for BentoML: ``bentoml serve service:Recommender`` and ``bentoml build``."""

from pathlib import Path

from recflow.serving.image import serving_image
from recflow.serving.service import Recommender

Recommender.image = serving_image(Path(__file__).parent)  # what `bentoml containerize` makes of it

__all__ = ["Recommender"]
