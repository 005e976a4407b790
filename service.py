"""The entry for BentoML: ``bentoml serve service:Recommender`` and ``bentoml build``."""

from recflow.serving.service import Recommender

__all__ = ["Recommender"]
