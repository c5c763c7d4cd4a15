"""What deploy/, the Dockerfile and the Jenkinsfile say, against the APIs' schemas, against each other and against a real node.

Method: Kubernetes' manifests are rendered and validated; what must agree (ports, users, names, deadlines, copies) is compared with the
code's own documentation; alert rules are checked and tested by promtool, the unit by systemd-analyze; a node runs on io_uring under
the container's and the unit's system call filters. No cluster, no Docker. Run by `make test`:
    target/venv/bin/python tests/deploy/test.py target/debug/ws-cluster
With --write instead of a node the manifests that are copies are made anew. The last line is `deploy: N passed, N failed`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import manifests  # noqa: E402
import under_seccomp  # noqa: E402
from running import DEMO_PID, DEMO_SECRET, Report, get, node, signed_query  # noqa: E402

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
ALERTS = DEPLOY / "prometheus/alerts.yml"
SECCOMP = DEPLOY / "seccomp/ws-cluster.json"
UNIT = DEPLOY / "systemd/ws-cluster.service"
# The oldest that has all that is used (preStop's sleep), and the newest with schemas.
VERSIONS = ("1.30", "1.37")


def documented(key):
    """A key's default, as docs/config.md has it."""
    [value] = re.findall(rf"^\| `{key}` \| `\"?([^`\"]+)\"?`", (ROOT / "docs/config.md").read_text(), re.M)
    return value


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def ran(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **more)
    return done.returncode, done.stdout + done.stderr


def copies():
    """The files that are made of others."""
    rules, profile = ALERTS.read_text(), SECCOMP.read_text()
    indented = lambda text, by: "".join(by + line if line.strip() else line for line in text.splitlines(keepends=True))
    of = lambda what: f"# Made of deploy/{what} by tests/deploy/test.py --write; change that.\n"
    named = lambda api, kind, name: f"apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n"
    rule = of("prometheus/alerts.yml") + named("monitoring.coreos.com/v1", "PrometheusRule", "ws-cluster")
    rule += "  labels:\n    app.kubernetes.io/name: ws-cluster\nspec:\n" + indented(rules[rules.index("groups:") :], "  ")
    data = of("seccomp/ws-cluster.json") + named("v1", "ConfigMap", "ws-cluster-seccomp")
    data += "data:\n  ws-cluster.json: |\n" + indented(profile, "    ")
    return {KUBERNETES / "monitoring/prometheusrule.yaml": rule, KUBERNETES / "seccomp-installer/configmap.yaml": data}


def one(objects, kind, name="ws-cluster"):
    [found] = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def check_copies():
    for file, text in copies().items():
        assert file.read_text() == text, f"{file}: run tests/deploy/test.py --write"


def check_schemas():
    # The base is in the example.
    for found in manifests.render(KUBERNETES / "example") + manifests.render(KUBERNETES / "seccomp-installer"):
        for version in VERSIONS:
            manifests.validate(found, version)


def check_runtime_default():
    """The component for machines without the profile changes that alone."""
    objects = manifests.render(KUBERNETES / "base")
    manifests.gather(KUBERNETES / "runtime-default", objects)
    with_it, without = one(objects, "StatefulSet"), one(manifests.render(KUBERNETES / "base"), "StatefulSet")
    manifests.validate(with_it, VERSIONS[0])
    rights = with_it["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    rights["seccompProfile"] = without["spec"]["template"]["spec"]["containers"][0]["securityContext"]["seccompProfile"]
    assert with_it == without


def check_that_the_schemas_bite():
    """A misspelt field, a wrong type and a wrong word are found."""
    objects = manifests.render(KUBERNETES / "example")
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    policy = one(objects, "DestinationRule")["spec"]["trafficPolicy"]
    faults = [
        (one(objects, "StatefulSet"), pod, "enableServiceLink", False),
        (one(objects, "StatefulSet"), pod, "terminationGracePeriodSeconds", "45"),
        (one(objects, "DestinationRule"), policy["loadBalancer"], "simple", "LEAST_CONNECTIONS"),
        (one(objects, "DestinationRule"), policy["loadBalancer"], "warmUp", {"duration": "60s"}),
        (one(objects, "ServiceMonitor"), one(objects, "ServiceMonitor")["spec"], "jobLable", "x"),
    ]
    for judged, place, key, value in faults:
        before = dict(place)
        place[key] = value
        try:
            manifests.validate(judged, VERSIONS[0])
        except AssertionError:
            pass
        else:
            raise AssertionError(f"{key} = {value!r} went through")
        place.clear()
        place.update(before)
        manifests.validate(judged, VERSIONS[0])


def check_with_kubectl():
    """What kustomize itself renders, if it is here, is what this test judges."""
    if not shutil.which("kubectl"):
        return print("kubectl is not here: the manifests are not compared with what it renders")
    for folder in ("example", "base", "seccomp-installer"):
        status, text = ran("kubectl", "kustomize", KUBERNETES / folder)
        assert status == 0, text
        # The hash in a generated name is kustomize's.
        text = re.sub(r"\bws-cluster-[a-z0-9]{10}\b(?!-)", "ws-cluster", text)
        theirs = [document for document in manifests.yaml.load_all(text, manifests.Strict) if document]
        order = lambda found: (found["kind"], found["metadata"]["name"])
        ours = json.loads(json.dumps(sorted(manifests.render(KUBERNETES / folder), key=order)))
        assert sorted(theirs, key=order) == ours, f"{folder}: rendered otherwise"


def check_references():
    """Selectors, ports and names meet."""
    objects = manifests.render(KUBERNETES / "example")
    stateful = one(objects, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    [container] = stateful["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    expected = {"ws": "ws_port", "api": "http_port", "metrics": "metrics_port", "pprof": "pprof_port"}
    assert ports == {name: int(documented(key)) for name, key in expected.items()}, ports
    services = {found["metadata"]["name"]: found["spec"] for found in objects if found["kind"] == "Service"}
    assert stateful["spec"]["serviceName"] in services
    for name, service in services.items():
        assert service["selector"].items() <= labels.items(), name
        assert all(port["port"] == ports[port["targetPort"]] for port in service["ports"]), name
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = one(objects, kind)["spec"]
        assert (spec.get("selector") or spec["podSelector"])["matchLabels"].items() <= labels.items(), kind
    for rule in one(objects, "NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= ports.keys() - {"pprof"}
    target = one(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", stateful["metadata"]["name"])
    open_to = {port["port"] for port in services["ws-cluster"]["ports"]}
    for route in (one(objects, "VirtualService"), one(objects, "VirtualService", "ws-cluster-inside")):
        for http in route["spec"]["http"]:
            for to in http["route"]:
                assert to["destination"]["host"] in services and to["destination"]["port"]["number"] in open_to, http["name"]
    assert one(objects, "DestinationRule")["spec"]["host"] in services
    [endpoint] = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    wanted = one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    [watched] = [found for found in objects if found["kind"] == "Service" and wanted.items() <= found["metadata"]["labels"].items()]
    assert endpoint["port"] in {port["name"] for port in watched["spec"]["ports"]}


def check_least_connections():
    load_balancer = one(manifests.render(KUBERNETES / "example"), "DestinationRule")["spec"]["trafficPolicy"]["loadBalancer"]
    # What makes nodes weigh differently, or leaves some out, counts for more than connections do.
    assert load_balancer == {"simple": "LEAST_REQUEST", "localityLbSetting": {"enabled": False}}, load_balancer


def check_deadlines():
    """A node has time to drain before it is killed."""
    pod = one(manifests.render(KUBERNETES / "base"), "StatefulSet")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    [drain] = re.findall(r'^drain = "(\d+)s"', (KUBERNETES / "base/ws-cluster.toml").read_text(), re.M)
    close, last_words = seconds(documented("close_timeout")), 5
    assert pod["terminationGracePeriodSeconds"] >= pause + int(drain) + close + last_words
    assert int(unit("TimeoutStopSec")) >= seconds(documented("drain")) + close + last_words


def check_restrictions():
    """Whatever runs here runs without rights, and the node as the image's user; no secret is in a file."""
    assert not [found for found in manifests.render(KUBERNETES / "example") if found["kind"] == "Secret"]
    user, group = dockerfile("USER").split(":")
    pod = one(manifests.render(KUBERNETES / "base"), "StatefulSet")["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group)), context
    rights = pod["containers"][0]["securityContext"]
    assert rights["readOnlyRootFilesystem"] and rights["capabilities"] == {"drop": ["ALL"]} and not rights["allowPrivilegeEscalation"]
    installer = one(manifests.render(KUBERNETES / "seccomp-installer"), "DaemonSet", "ws-cluster-seccomp")["spec"]["template"]["spec"]
    [folder] = [volume["hostPath"]["path"] for volume in installer["volumes"] if "hostPath" in volume]
    profile = rights["seccompProfile"]
    assert profile["type"] == "Localhost" and f"/var/lib/kubelet/seccomp/{profile['localhostProfile']}" == f"{folder}/{SECCOMP.name}"


def check_configuration(binary):
    """The node takes the shipped configuration, as prod, with secrets from where the manifests put them."""
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "project-502")
        secret.write_text("a secret of more than sixteen bytes\n")
        text = (KUBERNETES / "base/ws-cluster.toml").read_text()
        assert text.count("/etc/ws-cluster/secrets/project-502") == 1
        file = Path(folder, "ws-cluster.toml")
        file.write_text(text.replace("/etc/ws-cluster/secrets/project-502", str(secret)))
        secrets = {"WS_REDIS_URL": "redis://user:password@redis:6379/0", "WS_OPERATOR_TOKEN": "a-token-of-more-than-16-bytes"}
        environment = {"WS_NODE": "0", "WS_CORES": "2", **secrets}
        status, told = ran(Path(binary).resolve(), "check", "--config", file, env=environment)
        assert status == 0 and "password" not in told and environment["WS_OPERATOR_TOKEN"] not in told, told


def dockerfile(word):
    [text] = re.findall(rf"^{word} (.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    return text


def check_dockerfile():
    text = (ROOT / "Dockerfile").read_text()
    [channel] = re.findall(r'channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text())
    assert re.search(rf"^FROM rust:{re.escape(channel)}-\w+ AS build$", text, re.M), "the toolchain is another"
    assert re.search(r"^FROM scratch$", text, re.M)
    assert dockerfile("EXPOSE").split() == [documented("ws_port"), documented("http_port")]
    [flags] = re.findall(r"RUSTFLAGS='([^']+)'", text)
    [own] = re.findall(r'^rustflags = \["([^"]+)"\]', (ROOT / ".cargo/config.toml").read_text(), re.M)
    assert set(own.split()) < set(flags.split()), "RUSTFLAGS replaces what .cargo/config.toml says"
    assert "-Ctarget-feature=+crt-static" in flags
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"target", ".git"} <= set(ignored)


def check_jenkinsfile():
    """It names what is there."""
    text = (ROOT / "Jenkinsfile").read_text()
    assert (ROOT / ".ci/run").exists() and "sh '.ci/run'" in text
    for path in re.findall(r"deploy/[\w./-]+", text):
        assert (ROOT / path).exists(), path
    assert one(manifests.render(KUBERNETES / "base"), "StatefulSet") and "rollout status statefulset/ws-cluster" in text
    assert text.count("{") == text.count("}")


def check_alerts():
    for command in (("check", "rules", ALERTS), ("test", "rules", DEPLOY / "prometheus/alerts_test.yml")):
        status, told = ran("promtool", *command)
        assert status == 0, told


def check_runbook():
    """Every alert says how bad it is, what it means, and where it is written what to do."""
    [rules] = manifests.load(ALERTS)
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    names = [alert["alert"] for alert in alerts]
    assert len(set(names)) == len(names)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), alert
        assert {"summary", "description", "runbook"} == alert["annotations"].keys(), alert
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{alert['alert'].lower()}", alert
    runbook = ROOT / "docs/operating.md"
    missing = set(names) - set(re.findall(r"^#+ (\w+)\s*$", runbook.read_text(), re.M)) if runbook.exists() else set()
    assert not missing, f"docs/operating.md has no section {sorted(missing)}"


def unit(key):
    values = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.M)
    return " ".join(values)


def check_unit(binary):
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder, UNIT.name)
        installed.write_text(UNIT.read_text().replace("/usr/local/bin/ws-cluster", str(Path(binary).resolve())))
        status, told = ran("systemd-analyze", "verify", "--man=no", installed)
        assert status == 0 and not told.strip(), told
        # Of 10; below 2 is what systemd calls OK, and a plain service has 9.6.
        status, told = ran("systemd-analyze", "security", "--offline=true", "--threshold=20", installed)
        assert status == 0, told


def calls(names):
    """The system calls of systemd's groups."""
    found = set()
    for name in names:
        if name.startswith("@"):
            status, text = ran("systemd-analyze", "syscall-filter", name)
            assert status == 0, text
            listed = [line.strip() for line in text.splitlines()[1:] if line.startswith("    ")]
            found |= calls([line for line in listed if not line.startswith("#")])
        else:
            found.add(name)
    return found


def filter_of_the_unit():
    """The unit's filter in the form of a container's profile; calls that libseccomp does not know left out, as systemd does."""
    lines = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M)
    allowed = set()
    for line in lines:
        allowed = allowed - calls(line[1:].split()) if line.startswith("~") else allowed | calls(line.split())
    seccomp = under_seccomp.library()
    known = sorted(name for name in allowed | calls(["@default"]) if seccomp.seccomp_syscall_resolve_name(name.encode()) != -1)
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": known, "action": "SCMP_ACT_ALLOW"}]}


def check_under(profile, binary):
    """A node under a filter: forced to io_uring, so that it does not start if that is forbidden; pushes and profiles go through."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "profile.json")
        file.write_text(json.dumps(profile))
        wrapper = Path(folder, "node")
        words = [sys.executable, ROOT / "tests/under_seccomp.py", file, Path(binary).resolve()]
        wrapper.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n')
        wrapper.chmod(0o755)
        flags = ["--env", "test", "--driver", "uring", "--log_file", f"{folder}/ws.log"]
        with node(wrapper, folder, *flags, pprof="0") as addresses:
            status, page = get(f"http://{addresses['metrics']}/metrics")
            assert status == 200 and 'driver="io_uring"} 1' in page
            status, text = get(f"http://{addresses['http']}/ws/push?{signed_query(DEMO_SECRET, pid=DEMO_PID, tags='a', data='1')}", "POST")
            assert status == 200, text
            status, svg = get(f"http://{addresses['pprof']}/debug/pprof/flamegraph?seconds=1")
            assert status == 200 and "<svg" in svg, svg[:200]


def check_that_the_profile_forbids():
    """Namespaces, other sockets, tracing: what no node needs."""
    tries = [
        "import os, ctypes; libc = ctypes.CDLL(None, use_errno=True); assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == 1",
        "import socket\ntry: socket.socket(38, 5, 0)\nexcept PermissionError: pass\nelse: raise AssertionError('AF_ALG')",
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); assert libc.ptrace(0, 0, 0, 0) == -1 and ctypes.get_errno() == 1",
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); assert libc.mount(b'a', b'/', b'tmpfs', 0, 0) == -1 and ctypes.get_errno() == 1",
    ]
    for script in tries:
        status, told = ran(sys.executable, ROOT / "tests/under_seccomp.py", SECCOMP, sys.executable, "-c", script)
        assert status == 0, (script, told)


def main():
    if sys.argv[1:] == ["--write"]:
        for file, text in copies().items():
            file.write_text(text)
        return
    binary, report = sys.argv[1], Report("deploy")
    for tool, package in (("promtool", "prometheus"), ("systemd-analyze", "systemd")):
        with report.check(f"{tool} is installed (.ci/setup, Debian package {package})"):
            assert shutil.which(tool)
    checks = [
        ("the manifests that are copies are what they are copies of", check_copies),
        ("every manifest passes the schemas of its API", check_schemas),
        ("without the seccomp profile nothing else is otherwise", check_runtime_default),
        ("the schemas would find a mistake", check_that_the_schemas_bite),
        ("kustomize renders what was judged", check_with_kubectl),
        ("selectors, ports and names meet, and are the node's own", check_references),
        ("istio picks by open connections", check_least_connections),
        ("a node has the time to drain", check_deadlines),
        ("nothing has more rights than it needs", check_restrictions),
        ("the node takes the shipped configuration", lambda: check_configuration(binary)),
        ("the Dockerfile agrees with the code", check_dockerfile),
        ("the Jenkinsfile names what is there", check_jenkinsfile),
        ("promtool: the alert rules are good ones, and their tests pass", check_alerts),
        ("every alert has its section in the runbook", check_runbook),
        ("systemd-analyze: the unit is a good one", lambda: check_unit(binary)),
        ("a node on io_uring under the container's profile", lambda: check_under(json.loads(SECCOMP.read_text()), binary)),
        ("which forbids what no node needs", check_that_the_profile_forbids),
        ("a node on io_uring under the unit's filter", lambda: check_under(filter_of_the_unit(), binary)),
    ]
    for what, check in checks:
        with report.check(what):
            check()
    report.end()


main()
