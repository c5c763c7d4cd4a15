"""Kubernetes manifests as objects, rendered as kustomize does it for what deploy/kubernetes uses, and judged by the APIs' schemas.

Kubernetes' own objects: strictly, by its OpenAPI schemas (kubernetes-validate). istio's and the Prometheus operator's: by models made of
their CRDs (cloudcoil); a field that the models do not know would be passed over by them, so each object must come out of its model
as it went in.
"""

import copy
import functools
import importlib
import warnings
from pathlib import Path

import kubernetes_validate
import yaml

CUSTOM = {
    "networking.istio.io/v1": "cloudcoil.models.istio.networking.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
KUSTOMIZATION = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "images", "patches"}


# The schemas' common part has some megabytes and is the same for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


class Strict(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice} stands twice"
        return super().construct_mapping(node, deep)


def load(file):
    """The documents of a YAML file."""
    with open(file) as text:
        return [document for document in yaml.load_all(text, Strict) if document is not None]


def render(folder):
    """The objects of a kustomization."""
    objects = []
    gather(Path(folder), objects)
    return objects


def gather(folder, objects):
    """Adds a kustomization's objects to those that are there, and does to all of them what it orders."""
    [kustomization] = load(folder / "kustomization.yaml")
    assert kustomization.keys() <= KUSTOMIZATION, (folder, kustomization.keys() - KUSTOMIZATION)
    for name in kustomization.get("resources", []):
        if (folder / name).is_dir():
            gather((folder / name).resolve(), objects)
        else:
            objects += load(folder / name)
    objects += [config_map(folder, generated) for generated in kustomization.get("configMapGenerator", [])]
    for name in kustomization.get("components", []):
        gather((folder / name).resolve(), objects)
    for one in kustomization.get("patches", []):
        patch(objects, one)
    for image in kustomization.get("images", []):
        set_image(objects, image)
    for one in objects if "namespace" in kustomization else []:
        set_namespace(one, kustomization["namespace"])


def config_map(folder, generated):
    data = {Path(name).name: (folder / name).read_text() for name in generated["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data}


def patch(objects, one):
    """A JSON patch (RFC 6902) of the operations `add` and `replace`, on the objects that it names."""
    target = one["target"]
    met = [found for found in objects if found["kind"] == target["kind"] and found["metadata"]["name"] == target["name"]]
    assert met, f"nothing is called {target}"
    for step in yaml.load(one["patch"], Strict):
        assert step["op"] in ("add", "replace"), step
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        for place in met:
            for part in way:
                place = place[int(part) if isinstance(place, list) else part]
            assert step["op"] == "add" or last in place, f"{step['path']} is not there"
            place[last] = copy.deepcopy(step["value"])


def set_image(objects, image):
    for container in containers(objects):
        if container["image"] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"


def containers(objects):
    for one in objects:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", []) + pod.get("containers", [])


def set_namespace(one, namespace):
    if one["kind"] == "Namespace":
        one["metadata"]["name"] = namespace
    else:
        one["metadata"]["namespace"] = namespace


def validate(one, version):
    """Judges an object by the schema of its kind."""
    try:
        if one["apiVersion"] in CUSTOM:
            validate_custom(one)
        else:
            kubernetes_validate.validate(one, version, strict=True)
    except Exception as error:
        raise AssertionError(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {error}") from None


def validate_custom(one):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(importlib.import_module(CUSTOM[one["apiVersion"]]), one["kind"])
        understood = model.model_validate(one).model_dump(by_alias=True, exclude_unset=True, mode="json")
    unknown = list(left_out(one, understood))
    assert not unknown, f"the CRD does not know {unknown}"


def left_out(given, understood, path=""):
    """Where `given` has something that `understood` has not, or has otherwise."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            yield from left_out(value, understood[key], f"{path}.{key}") if key in understood else [f"{path}.{key}"]
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for number, (value, known) in enumerate(zip(given, understood)):
            yield from left_out(value, known, f"{path}[{number}]")
    elif given != understood:
        yield f"{path} = {given!r} (understood as {understood!r})"
