"""The hook that a plugin implements."""

from __future__ import annotations

from dataclasses import dataclass

import pluggy

from recflow.spec import ModelSpec

PROJECT = "recflow"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Everything that recflow asks of a plugin."""

    @hookspec
    def recflow_model(self) -> ModelSpec:
        """Describe one model. Called once, when the plugin is loaded; must not import torch."""
        raise NotImplementedError  # pluggy reads the signature and never runs the body


@dataclass(frozen=True)
class Plugin:
    """A hook holder for one model, for packages that hold several: ``popularity = Plugin(ModelSpec(...))``.

    A package with a single model can implement ``recflow_model`` as a function of its own instead.
    """

    spec: ModelSpec

    @hookimpl
    def recflow_model(self) -> ModelSpec:
        """Return the model's description."""
        return self.spec
