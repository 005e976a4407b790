"""What goes into a Bento and its image, and what the deployments around it ask for. `make image-test` builds one."""

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from types import SimpleNamespace

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recflow.serving.image import PACKAGES, TORCH_NEEDS
from tests.serving.made_up import make_bundle
from tests.serving.processes import PATIENCE, ROOT, server

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["recflow"]
KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all((ROOT / "docs/examples/kubernetes.yaml").read_text())}
CONTAINER = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"][0]
PROBES = ["startupProbe", "readinessProbe", "livenessProbe"]
PUT = """
import sys
from pathlib import Path
from recflow.serving import store
print(store.put(Path(sys.argv[1]), "# A card", labels={}))
"""


def python(*arguments, home, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )


@pytest.fixture(scope="module")
def bento(tmp_path_factory):
    """A Bento built when `old` was the newest model in the store; `new` was packaged after it."""
    home = tmp_path_factory.mktemp("bentoml")
    old, new = (make_bundle(home / name, seed, plugin=name) for seed, name in enumerate(["ease", "ials"]))
    put = python("-c", PUT, old, home=home)
    assert put.returncode == 0, put.stderr
    tag = put.stdout.strip()
    done = python("-m", "bentoml", "build", "-o", "tag", home=home, RECFLOW_TORCH_INDEX="https://example.org/torch")
    assert done.returncode == 0, done.stdout + done.stderr
    name, version = re.search(r"__tag__:(\S+):(\S+)", done.stdout).groups()
    assert python("-c", PUT, new, home=home).returncode == 0
    folder = home / "bentos" / name / version
    return SimpleNamespace(folder=folder, tag=f"{name}:{version}", model=tag, home=home)


@pytest.mark.slow
class TestBento:
    def test_it_holds_the_entry_the_versions_and_a_fresh_wheel_and_no_data(self, bento):
        source = bento.folder / "src"
        files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
        (wheel,) = [name for name in files if name.startswith("dist/")]
        assert files == {"service.py", "constraints.txt", "bentofile.yaml", wheel}
        with zipfile.ZipFile(source / wheel) as archive:
            packed = set(archive.namelist())
            assert archive.read("recflow/serving/image.py") == (ROOT / "recflow/serving/image.py").read_bytes()
        assert any(name.endswith("entry_points.txt") for name in packed)
        assert {"recflow_lightgcn/__init__.py", "recflow/serving/web/main.js"} <= packed
        assert not [name for name in packed if name.endswith((".csv", ".dat", ".zip", ".parquet", ".safetensors"))]

    def test_the_versions_are_those_of_the_constraints(self, bento):
        pinned = re.findall(
            r"^([\w.-]+)==(\S+)", (bento.folder / "env/python/requirements.txt").read_text(), re.MULTILINE
        )
        known = {canonicalize_name(name): version for name, version in constraints()}
        assert {canonicalize_name(name) for name in (*PACKAGES, *TORCH_NEEDS, "bentoml")} <= {
            name for name, _ in pinned
        }
        assert {name: known.get(name, version) for name, version in pinned} == dict(pinned)

    def test_the_image_has_cpu_torch_a_user_of_its_own_and_a_health_check(self, bento):
        dockerfile = (bento.folder / "env/docker/Dockerfile").read_text()
        lines = dockerfile.splitlines()
        assert "FROM python:3.11-slim AS base-container" in lines
        assert "USER bentoml" in lines
        (torch,) = [line for line in lines if "--no-deps --constraint src/constraints.txt torch" in line]
        assert torch.startswith("RUN uv pip install --index-url https://example.org/torch ")
        (health,) = [line for line in lines if line.startswith("HEALTHCHECK ")]
        assert "/readyz" in health
        assert lines.index(health) > lines.index(torch)
        assert "build-essential" not in dockerfile

    def test_the_model_is_the_one_of_its_day_and_the_probes_are_answered(self, bento, port, tmp_path):
        command = [sys.executable, "-m", "bentoml", "serve", bento.tag, "--host", "127.0.0.1", "--port", str(port)]
        with server(command, port, tmp_path, BENTOML_HOME=str(bento.home)) as (url, log, _):
            (model,) = httpx.get(f"{url}/api/models").json()["models"]
            assert model["plugin"] == "ease"
            assert bento.model in log.read_text()
            for probe in PROBES:
                assert httpx.get(url + CONTAINER[probe]["httpGet"]["path"]).status_code == 200, probe

    def test_without_a_packaged_model_there_is_none(self, tmp_path):
        done = python("-m", "bentoml", "build", home=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert "Model recflow:latest could not be found locally" in line


def constraints():
    return re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def needed_by(*names):
    """These distributions and, all the way down, those that they need."""
    found, left = set(), list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found.add(name)
            needs = map(Requirement, metadata.requires(name) or ())
            left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


class TestPackages:
    """The list is short: it must be long enough."""

    def test_serving_needs_nothing_else(self, bundle):
        installed = {*needed_by(*PACKAGES, *TORCH_NEEDS, "bentoml"), "torch", "recflow"}
        owners = metadata.packages_distributions()
        absent = [
            module for module, names in owners.items() if not {canonicalize_name(name) for name in names} & installed
        ]
        program = """
import sys
from pathlib import Path
own, absent = ("recflow", "__", "_editable"), sys.argv[2].split(",")
sys.modules.update({name: None for name in absent if not name.startswith(own)})  # as if they were not installed
import service
from recflow.serving.models import Models
(model,) = Models.load([Path(sys.argv[1])])
assert len(model.recommender.recommend(3, 4).recommendations) == 4
"""
        done = python("-c", program, bundle, ",".join(absent), home="/nonexistent")
        assert done.returncode == 0, done.stderr
        assert {"polars", "lightning", "optuna", "matplotlib"} <= set(absent)

    def test_torch_has_what_it_asks_for(self):
        asked = [Requirement(line) for line in metadata.requires("torch") if "extra ==" not in line]
        names = {canonicalize_name(each.name) for each in asked}
        assert {name for name in names if not re.match("nvidia|cuda|triton", name)} == set(TORCH_NEEDS)


class TestDeployments:
    def test_compose_asks_for_the_services_port_and_a_model_only_where_one_is_named(self):
        assert COMPOSE["ports"] == ["127.0.0.1:${RECFLOW_PORT:-3000}:3000"]
        assert "127.0.0.1:3000/readyz" in COMPOSE["healthcheck"]["test"][-1]
        assert COMPOSE["environment"]["RECFLOW_BUNDLE"] == "${BUNDLE:+/bundle}"
        assert COMPOSE["volumes"][0]["target"] == "/bundle"

    def test_kubernetes_asks_for_the_port_that_the_service_has(self):
        (port,) = CONTAINER["ports"]
        assert (port["name"], port["containerPort"]) == ("http", 3000)
        assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {"http"}
        assert KUBERNETES["Service"]["spec"]["ports"][0]["targetPort"] == "http"
        labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert KUBERNETES["Service"]["spec"]["selector"] == labels
        assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
        assert KUBERNETES["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "recflow"

    @pytest.mark.parametrize("file", ["compose.yaml", "docs/examples/kubernetes.yaml"])
    def test_every_setting_in_them_is_one_of_ours(self, file):
        documented = set(re.findall(r"`(RECFLOW_\w+)`", (ROOT / "docs/serving.md").read_text()))
        named = re.findall(r"(?:name: |^ +)(RECFLOW_\w+)(?::|$)", (ROOT / file).read_text(), re.MULTILINE)
        assert named
        assert set(named) <= documented

    def test_all_else_is_read_only_and_nobody_is_root(self):
        assert (COMPOSE["read_only"], COMPOSE["tmpfs"]) == (True, ["/tmp"])
        assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
        assert [mount["mountPath"] for mount in CONTAINER["volumeMounts"]] == ["/tmp"]
        assert KUBERNETES["Deployment"]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]
