"""For whoever writes a model: a kit of tests that every recflow model passes."""

from recflow.testing.conformance import ModelConformance

__all__ = ["ModelConformance"]
