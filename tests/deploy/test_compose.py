"""The Compose example: images are pinned, services are confined, and all files that it uses exist."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.compose import FILE, FOLDER, SECRETS, HostRun, Service, load_compose, load_services, mounted_files
from tests.support.alert_rules import needs_amtool, needs_promtool, run_tool
from tests.support.programs import PROGRAM

ROOT = FOLDER.parents[1]
README = FOLDER / "README.md"
SERVICES = load_services()
BUILT = [name for name, service in SERVICES.items() if "build" in service]
#: The services in the network namespace of Prometheus.
SHARED_NETWORK = ["prometheus", *(name for name, service in SERVICES.items() if "network_mode" in service)]
PROVISIONING = ROOT / "grafana" / "provisioning"
_PODMAN_COMPOSE = Path(sys.executable).with_name("podman-compose")

each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.skipif(
    not _PODMAN_COMPOSE.exists() or shutil.which("podman") is None,
    reason="needs podman-compose (make deploy-check) and podman: apt install podman",
)
@pytest.mark.parametrize("fixed", ["", "1"])
def test_podman_compose_reads_the_file_as_these_tests_do(fixed: str) -> None:
    """It finds the same services, with the same value of FIXED."""
    environment = {name: value for name, value in os.environ.items() if name != "FIXED"} | {"FIXED": fixed}
    result = subprocess.run(
        [_PODMAN_COMPOSE, "--file", FILE, "config"],
        env=environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    theirs = yaml.safe_load(result.stdout)["services"]
    assert theirs.keys() == SERVICES.keys()
    for name, service in load_services(FIXED=fixed).items():
        assert theirs[name].get("environment", {}) == service.get("environment", {})
        assert theirs[name].get("entrypoint") == service.get("entrypoint")
        assert theirs[name].get("command") == service.get("command")
        assert theirs[name]["cap_drop"] == ["ALL"]


@each_service
def test_images_are_pinned_or_our_own(name: str) -> None:
    """An image has a registry and an exact version, or is a stage of our Dockerfile."""
    service = SERVICES[name]
    if name not in BUILT:
        assert re.fullmatch(r"docker\.io/[a-z]+/[a-z]+:v?\d+(\.\d+){1,2}(-bookworm)?", service["image"])
        return
    assert "image" not in service
    context = (FOLDER / service["build"]["context"]).resolve()
    assert context == ROOT
    target = service["build"].get("target", "daemon")
    assert re.search(rf"^FROM \S+ AS {target}$", (context / "Dockerfile").read_text(), re.MULTILINE)


@each_service
def test_services_are_confined(name: str) -> None:
    """A service has no capabilities by default, cannot gain privileges, and has resource limits and a health check."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "pid", "ipc", "devices", "userns_mode"}
    assert bool(service.get("cap_add")) == (name == "postgres")
    # The images of these two write to their own file system.
    assert service.get("read_only", False) == (name not in {"postgres", "grafana"})
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory", "pids"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"].keys() >= {"interval", "timeout"}


@each_service
def test_ports_are_open_on_this_machine_only(name: str) -> None:
    """Every published port is on 127.0.0.1, so no other machine can connect."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@each_service
def test_mounts_exist_and_are_read_only(name: str) -> None:
    """Mounts are files and folders of the repository only."""
    for source in mounted_files(SERVICES[name]).values():
        assert source.exists()
        assert source.is_relative_to(ROOT)
        assert source not in FOLDER.parents
        assert source != FOLDER


@each_service
def test_services_wait_for_the_services_that_they_use(name: str) -> None:
    """Dependencies exist, and a service that connects to another waits until that is healthy."""
    service = SERVICES[name]
    needed = service.get("depends_on", {})
    assert needed.keys() <= SERVICES.keys()
    for other, place in {"postgres": "postgres:5432", "prometheus": "prometheus:9090", "orders": "orders:8080"}.items():
        if place in json.dumps([service.get("environment"), service.get("command")]):
            assert needed[other] == {"condition": "service_healthy"}


@each_service
def test_passwords_are_in_files(name: str) -> None:
    """No variable contains a password. Each variable with the path of a secret names one of the service's secrets."""
    service = SERVICES[name]
    variables = service.get("environment", {})
    files = {value.removeprefix(SECRETS) for value in variables.values() if value.startswith(SECRETS)}
    assert files <= set(service.get("secrets", [])) <= load_compose()["secrets"].keys()
    secret = [variable for variable in variables if re.search("PASSWORD|SECRET|TOKEN", variable)]
    assert all(variables[variable].startswith(SECRETS) for variable in secret)
    assert not re.search(r"//[^/@\s]*:[^/@\s]*@", json.dumps(service))


def test_the_command_in_the_readme_creates_every_secret(tmp_path: Path) -> None:
    """The files are readable for containers, in a folder that others cannot enter."""
    [command] = re.findall(r"^\$ (.*openssl.*)$", README.read_text(), re.MULTILINE)
    assert "/dev/stdin" not in command  # install on macOS does not accept it
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt install openssl")
    subprocess.run(["sh", "-ec", f"umask 077; {command}"], cwd=tmp_path, check=True, timeout=10)
    paths = [(tmp_path / secret["file"]) for secret in load_compose()["secrets"].values()]
    assert sorted(paths) == sorted((tmp_path / "secrets").iterdir())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert re.fullmatch(r"[0-9a-f]{48}\n", path.read_text())


def test_secrets_are_excluded_from_git_and_from_builds() -> None:
    """.gitignore keeps them out of Git and the source distribution, and .dockerignore out of images."""
    for secret in load_compose()["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "/deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not [line for line in ignored if line.startswith("!deploy/compose")]


def test_the_readme_names_existing_services_addresses_and_settings() -> None:
    """Services in commands, published addresses, and the interval of the leak."""
    text = README.read_text()
    named = " ".join(re.findall(r"docker compose (?:logs --follow|restart) ([a-z ]+)", text)).split()
    assert named
    assert set(named) <= SERVICES.keys()
    assert sorted(re.findall(r"docker compose restart ([a-z ]+)", text)[0].split()) == sorted(SHARED_NETWORK)
    published = {port.rpartition(":")[0] for service in SERVICES.values() for port in service.get("ports", [])}
    addresses = set(re.findall(r"http://([\d.]+:\d+)/", text))
    assert addresses == published
    every = SERVICES["traffic"]["command"][1].partition("=")[2]
    assert f"a session every {every} s" in text


def test_the_daemon_accepts_its_environment(tmp_path: Path) -> None:
    """All settings exist and are valid, and `config` does not print the password."""
    daemon, host_run = SERVICES["daemon"], HostRun(folder=tmp_path)
    passwords = host_run.make_secrets()
    result = subprocess.run(
        [*PROGRAM, "config"], env=host_run.environment(daemon), capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["hold_limit"] == daemon["environment"]["PGWATCH_SESSIONS_HOLD_LIMIT"]
    assert passwords["pgwatch-sessions-password"] not in result.stdout + result.stderr


def option(service: Service, name: str) -> str:
    """Return the value of an option in the service's command."""
    [value] = [word.partition("=")[2] for word in service["command"] if word.startswith(f"{name}=")]
    return str(value)


def copy_mounts(service: Service, folder: Path) -> Path:
    """Copy the mounted files to their paths below the folder, and return the path of the configuration there."""
    for target, source in mounted_files(service).items():
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / target.lstrip("/"))
    return folder / option(service, "--config.file").lstrip("/")


@needs_promtool
def test_prometheus_finds_its_rules_where_they_are_mounted(tmp_path: Path) -> None:
    """At its path in the container, the shipped configuration finds the shipped rules."""
    checked = run_tool("promtool", "check", "config", copy_mounts(SERVICES["prometheus"], tmp_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "2 rule files found" in checked.stdout


@needs_amtool
def test_alertmanager_finds_its_configuration(tmp_path: Path) -> None:
    """The shipped file is valid at its path in the container."""
    checked = run_tool("amtool", "check-config", copy_mounts(SERVICES["alertmanager"], tmp_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_shipped_addresses_work_in_the_shared_network_namespace() -> None:
    """Everything that Prometheus and Alertmanager use on 127.0.0.1 listens there."""
    assert sorted(SHARED_NETWORK) == ["alertmanager", "daemon", "prometheus", "webhook"]
    assert {SERVICES[name]["network_mode"] for name in SHARED_NETWORK if name != "prometheus"} == {"service:prometheus"}
    prometheus = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    run_server = SERVICES["daemon"]["environment"]["PGWATCH_SESSIONS_LISTEN"].rpartition(":")[2]
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", prometheus)) == {"9093", run_server}
    alertmanager = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text()
    assert set(re.findall(r"http://127\.0\.0\.1:(\d+)/", alertmanager)) == {option(SERVICES["webhook"], "--port")}


def test_grafana_finds_dashboards_and_prometheus() -> None:
    """The shipped provisioning uses the mounted folder, and a variable that is set."""
    grafana = SERVICES["grafana"]
    [provider] = yaml.safe_load((PROVISIONING / "dashboards/pgwatch-sessions.yml").read_text())["providers"]
    assert mounted_files(grafana)[provider["options"]["path"]] == ROOT / "grafana/dashboards"
    [source] = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("$") in grafana["environment"]
