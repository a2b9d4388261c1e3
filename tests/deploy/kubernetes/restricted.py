"""The rules of the Pod Security Standard `restricted` for the fields of a pod."""

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = {
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_LISTS = ("containers", "initContainers", "ephemeralContainers")
_SECCOMP = {"RuntimeDefault", "Localhost"}
#: Allowed values of fields of a container; None means absent.
_FIXED: Mapping[str, tuple[object, ...]] = {
    "privileged": (None, False),
    "allowPrivilegeEscalation": (False,),
    "procMount": (None, "Default"),
}


def violations(spec: Spec) -> list[str]:
    """Return the fields for which a namespace that enforces the standard would reject the pod."""
    return [
        *_pod_violations(spec),
        *(
            fault
            for each in _LISTS
            for container in spec.get(each, ())
            for fault in _container_violations(container, spec)
        ),
    ]


def _pod_violations(spec: Spec) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", ()):
        if not set(volume) <= _VOLUMES:
            yield f"volume {volume['name']}"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls"


def _container_violations(container: Spec, pod: Spec) -> Iterator[str]:
    own, name = container.get("securityContext", {}), container["name"]
    effective = {**pod.get("securityContext", {}), **own}
    for field, allowed in _FIXED.items():
        if own.get(field) not in allowed:
            yield f"{name}: {field}"
    if effective.get("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot"
    if effective.get("runAsUser") == 0:
        yield f"{name}: runAsUser"
    if effective.get("seccompProfile", {}).get("type") not in _SECCOMP:
        yield f"{name}: seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or not {*capabilities.get("add", ())} <= {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield f"{name}: hostPort"
