"""What lets others in on Kubernetes, the keys of a Secret and a public name, and what k8s/README.md tells to type."""

import base64
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from charts import CHART, comparable, helm_template, values
from key_rules import KEY_FILE
from manifest_rules import pinned, settings_variables
from manifests import K8S, KUBECTL, ROOT, Manifest, find, of_kind, render, workload, workloads

README = (K8S / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block(part: str) -> str:
    """The commands of the one block of the README that has this in it, each on one line."""
    (found,) = [text for text in BLOCKS if part in text]
    return re.sub(r"(\\|\|)\n\s*", r"\1 ", found).replace("\\ ", "")


def run_of(part: str, commands: str, folder: Path) -> str:
    """What these commands of a block print, where kubectl only shows what it would send."""
    lines = [line for line in block(part).splitlines() if re.match(commands, line)]
    dry = [
        re.sub(r"( --dry-run=client -o yaml \|.*)?$", " --dry-run=client -o yaml", line) if "kubectl" in line else line
        for line in lines
    ]
    environment = os.environ | {"PATH": f"{KUBECTL.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", "\n".join(dry)],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def lines_of(secret: str) -> list[str]:
    """The keys in a Secret as the gateway finds it: by its name, and its entry by the name of the file."""
    manifest = yaml.safe_load(secret)
    (volume,) = [v for v in workload(render(K8S / "base"), "vqd-gateway").pod["volumes"] if v["name"] == "keys"]
    assert manifest["metadata"]["name"] == volume["secret"]["secretName"]
    return base64.b64decode(manifest["data"][Path(KEY_FILE).name]).decode().splitlines()


def test_the_commands_of_the_readme_make_a_first_key_and_put_another_before_it(tmp_path: Path) -> None:
    commands = r"\(umask|kubectl -n vqd create secret"
    first = lines_of(run_of("> keys)", commands, tmp_path))
    assert len(first) == 1
    assert all(re.fullmatch(r"[!-~]{32,512}", key) for key in first)
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    both = lines_of(run_of("> new-keys;", commands, tmp_path))
    assert both[1:] == first
    assert both[0] not in first


def test_the_first_request_of_the_readme_sends_the_key() -> None:
    request = block("apple.png")
    assert "KEY=$(head -n 1 keys)" in request
    assert "Authorization: Bearer $KEY" in shlex.split(request)


def overlay(folder: Path, text: str) -> list[Manifest]:
    (folder / "kustomization.yaml").write_text(text.replace("../k8s", os.path.relpath(K8S, folder)))
    return render(folder)


def test_the_public_overlay_of_the_readme_is_what_the_chart_makes_of_the_same_wishes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n# public/.*?\n(.*?)```", README, re.DOTALL)
    public = overlay(tmp_path, text.replace("namespace: vqd\n", ""))
    wishes = {
        "httpRoute": {"enabled": True, "hostnames": ["api.example.org"]},
        "settings": {"VQD_ROOT_PATH": "/pictures"},
    }
    assert comparable(public) == comparable(helm_template(values("values-gpu.yaml") | wishes))


@pytest.fixture
def public(tmp_path: Path) -> list[Manifest]:
    components = ["../k8s/components/ingress", "../k8s/components/httproute"]
    return overlay(tmp_path, yaml.safe_dump({"resources": ["../k8s/base"], "components": components}))


def test_a_public_name_leads_to_the_gateways_service_by_tls(public: list[Manifest]) -> None:
    (port,) = find(public, "Service", "vqd-gateway")["spec"]["ports"]
    (ingress,) = [manifest["spec"] for manifest in of_kind(public, "Ingress")]
    (rule,) = ingress["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "vqd-gateway", "port": {"name": port["name"]}}
    assert [tls["hosts"] for tls in ingress["tls"]] == [[rule["host"]]]
    (route,) = [manifest["spec"] for manifest in of_kind(public, "HTTPRoute")]
    (rule,) = route["rules"]
    assert [(ref["name"], ref["port"]) for ref in rule["backendRefs"]] == [("vqd-gateway", port["port"])]
    assert [parent["sectionName"] for parent in route["parentRefs"]] == ["https"]
    assert rule["timeouts"] == {"request": "0s"}, "a stream of events lasts as long as its job"


def test_a_public_gateway_keeps_its_metrics_to_prometheus(public: list[Manifest]) -> None:
    """The Service, and so every public name, leads to the port of the clients alone."""
    assert [p["targetPort"] for p in find(public, "Service", "vqd-gateway")["spec"]["ports"]] == ["http"]
    assert workload(public, "vqd-gateway").ports()["http"] == int(settings_variables(public)["VQD_PORT"])


@pytest.mark.parametrize("command", [line for line in block("helm install").splitlines() if line.startswith("helm ")])
def test_the_helm_commands_of_the_readme_render(command: str) -> None:
    words = shlex.split(command.replace("$REGISTRY", "registry.example.com"))
    assert words[2:4] == ["vqd", str(CHART.relative_to(ROOT))]
    options = list(zip(words[4::2], words[5::2], strict=True))
    given: dict[str, Any] = {}
    for option, value in options:
        assert option in ("-n", "-f", "--set")
        if option == "-f":
            given |= yaml.safe_load((ROOT / value).read_text())
        if option == "--set":
            given |= helm_python.parse_set_string(value)
    rendered = helm_template(given)
    images = [container["image"] for each in workloads(rendered) for container in each.containers]
    assert all(image.startswith("registry.example.com/") for image in images)


def test_an_image_by_its_digest_is_pinned(tmp_path: Path) -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    image = {"name": "ghcr.io/example/vqd-gateway", "newName": "registry.example.com/vqd-gateway", "digest": digest}
    by_digest = overlay(tmp_path, yaml.safe_dump({"resources": ["../k8s/base"], "images": [image]}))
    (container,) = workload(by_digest, "vqd-gateway").containers
    assert container["image"] == f"registry.example.com/vqd-gateway@{digest}"
    assert list(pinned(by_digest)) == []
    container["image"] = container["image"][:-1]
    assert len(list(pinned(by_digest))) == 1
