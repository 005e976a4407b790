"""The image of the service: what `bentoml containerize` makes of a Bento; `service.py` in a checkout asks for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
from bentoml.exceptions import BentoMLException
from bentoml.images import Image

PYTHON = "3.11"
TORCH_INDEX = "RECFLOW_TORCH_INDEX"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"  # PyPI's torch brings gigabytes of CUDA along
# What serving imports, and what torch does; their versions, and those of what they need, are in constraints.txt.
PACKAGES = ("faiss-cpu", "fastapi", "pluggy", "prometheus-client", "pydantic", "pyyaml", "safetensors")
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions")

log = logging.getLogger("bentoml.recflow")


@attrs.define
class ServingImage(Image):  # type: ignore[misc]  # bentoml has no types
    """An image that holds a wheel of the checkout, made anew whenever a Bento is built."""

    checkout: Path = attrs.field(kw_only=True)

    def freeze(self, bento_fs: Path, *args: Any, **kwargs: Any) -> Any:
        """Make the wheel, in which plugins keep their entry points, and let BentoML do the rest."""
        log.info("Building the wheel of %s.", self.checkout)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
        done = subprocess.run([*command, str(bento_fs / "src/dist"), str(self.checkout)], check=False)
        if done.returncode != 0:
            raise BentoMLException("The wheel of recflow could not be built; pip says above why.")
        return super().freeze(bento_fs, *args, **kwargs)


def serving_image(checkout: Path) -> Image:
    """CPU torch, a short list of packages and our wheel, on a slim base: nothing that only training needs.

    An empty distro leaves out the build tools that BentoML adds otherwise (0.6 GB). ``RECFLOW_TORCH_INDEX`` names
    another index of torch's builds; set but empty, torch comes from where everything else does.

    What changes least is installed first, so that a new version of ours reuses the layers below it. BentoML pastes a
    command behind RUN as it stands: a line break opens further instructions, for which it has no call.
    """
    index = os.environ.get(TORCH_INDEX, CPU_BUILDS)
    ask = "import urllib.request as r; r.urlopen('http://127.0.0.1:${PORT:-3000}/readyz')"
    after = [
        f"uv pip install {index and f'--index-url {index} '}--no-deps --constraint src/constraints.txt torch && "
        f"cd /app/.venv/lib/python{PYTHON}/site-packages/torch && "
        "rm -rf test include bin/test_* bin/*Test bin/protoc*",  # 0.2 GB of headers and programs of torch's own tests
        "COPY --chown=bentoml:bentoml ./src/dist ./src/dist",
        "RUN uv pip install --no-deps src/dist/*.whl",
        "ENV BENTOML_HOME=/tmp/bentoml",  # the one folder that is written to: all else may be read-only
        f'HEALTHCHECK --start-period=60s --interval=15s --timeout=5s CMD python -c "{ask}"',
    ]
    return (
        ServingImage(  # type: ignore[call-arg]
            base_image=f"python:{PYTHON}-slim", distro="", python_version=PYTHON, checkout=checkout
        )
        .build_include("constraints.txt")
        .python_packages("--constraint ../../src/constraints.txt", *PACKAGES, *TORCH_NEEDS)
        .run("\n".join(after))
    )
