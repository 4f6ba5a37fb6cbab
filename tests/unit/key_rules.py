"""The gateway asks for API keys, and reads the first ones from a Secret that no other container sees."""

from collections.abc import Iterator

from manifests import Manifest, of_kind, workloads

KEY_FILE = "/run/secrets/vqd/keys"


def keyed(manifests: list[Manifest]) -> Iterator[str]:
    for config in of_kind(manifests, "ConfigMap"):
        if "VQD_ALLOW_UNAUTHENTICATED" in config.get("data", {}):
            yield f"{config['metadata']['name']} says whether keys are asked for, which is not for a manifest to say"
    readers: dict[str, list[str]] = {}
    for each in workloads(manifests):
        secrets = {volume["name"]: volume["secret"] for volume in each.pod.get("volumes", []) if "secret" in volume}
        for container in each.containers:
            mounts = [mount for mount in container.get("volumeMounts", []) if mount["name"] in secrets]
            readers |= {container["name"]: [mount["mountPath"] for mount in mounts]} if mounts else {}
            if not all(mount.get("readOnly") for mount in mounts):
                yield f"{each.name}/{container['name']} mounts a Secret to write"
            told = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
            expected = KEY_FILE if container["name"] == "gateway" else None
            if told.get("VQD_KEY_FILE") != expected:
                yield f"{each.name}/{container['name']} reads its keys from {told.get('VQD_KEY_FILE')}"
        if any(secret.get("optional") for secret in secrets.values()):
            yield f"{each.name} starts without keys, and serves nobody"
    if readers != {"gateway": [KEY_FILE.rpartition("/")[0]]}:
        yield f"the keys are mounted by {readers}"
