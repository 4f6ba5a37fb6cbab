"""The parts of an inference pod fit each other: the order of their start, the folder and the addresses they share."""

from collections.abc import Iterator

from manifests import Manifest, Workload, workload


def ordered(manifests: list[Manifest]) -> Iterator[str]:
    """export fills /models before Triton loads it, and Triton is a sidecar: ready before the worker, gone after it."""
    inference = workload(manifests, "vqd-inference")
    if [container["name"] for container in inference.containers] != ["export", "triton", "worker"]:
        yield "export, triton, worker do not start in this order"
    if inference.container("triton").get("restartPolicy") != "Always":
        yield "Triton is no sidecar: the worker would wait for its end"
    if "readOnly" in mounted(inference, "export"):
        yield "export cannot write the models"
    if not all(mounted(inference, name).get("readOnly") for name in ("triton", "worker")):
        yield "Triton or the worker may write the models"


def mounted(inference: Workload, container: str) -> Manifest:
    """How a container mounts the model repository."""
    return next((mount for mount in mounts(inference.container(container)) if mount["name"] == "models"), {})


def mounts(container: Manifest) -> list[Manifest]:
    found: list[Manifest] = container.get("volumeMounts", [])
    return found


def options(container: Manifest) -> dict[str, str]:
    """What is said on its command line as ``--name=value``."""
    words = [*container.get("command", []), *container.get("args", [])]
    return dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)


def fitting(manifests: list[Manifest]) -> Iterator[str]:
    """export writes where Triton reads and all mount; gRPC is the worker's alone; torch keeps to Triton's share."""
    inference = workload(manifests, "vqd-inference")
    triton = inference.container("triton")
    folders = {mounted(inference, container["name"]).get("mountPath") for container in inference.containers}
    folders.add(options(inference.container("export")).get("--repository"))
    folders.add(options(triton).get("--model-repository"))
    if len(folders) != 1:
        yield f"the models are in {folders}"
    if options(triton).get("--grpc-address") != "127.0.0.1":
        yield "others than the worker may call Triton"
    threads = [variable for variable in triton["env"] if variable["name"] == "OMP_NUM_THREADS"]
    if [variable["valueFrom"] for variable in threads] != [{"resourceFieldRef": {"resource": "limits.cpu"}}]:
        yield "torch starts a thread per core of the node"
