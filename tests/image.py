"""The image of the Dockerfile, made and run without Docker: a static binary in a bare chroot.

Method: the commands of the Dockerfile's RUN are done one by one, with another folder for /image and the quick profile for
the build. What they make is run as a container runtime would: in a chroot, as the Dockerfile's user, without capabilities,
under the shipped seccomp profile. Needs root, Redis, and 10 to 20 minutes for the first build:
    make image
A binary that is there already is taken instead of a build: target/venv/bin/python tests/image.py BINARY
The last line is `image: N passed, N failed`.
"""

import asyncio
import ctypes
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from websockets.asyncio.client import connect

import under_seccomp
from running import DEMO_PID, DEMO_SECRET, PATIENCE, Report, free_port, get, process, signed_query, until

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "deploy/seccomp/ws-cluster.json"
# What every runtime brings along: fresh ones, so that nothing here can touch this machine's own.
RUNTIMES_BRING = {"proc": ("proc", "nosuid"), "sys": ("sysfs", "ro"), "dev": ("tmpfs", "nosuid")}
DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
# A name that no DNS knows.
QUEUE = "queue.invalid"
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CAPABILITIES = 24, 38, range(64)
PT_INTERP = 3


def instructions():
    """The Dockerfile's instructions, each with its text, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    return [tuple(line.split(maxsplit=1)) for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


def the(name):
    """The last one counts, which is the image's own."""
    *_, text = [text for word, text in instructions() if word == name]
    return text


def arguments():
    """What the build may be told otherwise, with the defaults."""
    return dict(text.split("=", 1) for word, text in instructions() if word == "ARG")


def build(commands, given):
    """Runs the build command, unless there is a binary; the binary's path."""
    [command] = [command for command in commands if "cargo build" in command]
    if given:
        assert Path(given).name == "ws-cluster", given
        return Path(given)
    quick = command.replace("--release", "--profile quick")
    assert quick != command, command
    subprocess.run(quick, shell=True, check=True, cwd=ROOT)
    [binary] = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).glob("*-linux-*/quick/ws-cluster")
    return binary


def make(image, given):
    """Does what RUN does, with `image` for /image."""
    commands = [command.strip() for command in re.sub(r"--mount=\S+", "", the("RUN")).split("&&")]
    binary = build(commands, given)
    for command in commands:
        if "cargo build" not in command:
            command = command.replace("target/*/release/ws-cluster", shlex.quote(str(binary.resolve())))
            subprocess.run(command.replace("/image", str(image)), shell=True, check=True, cwd=ROOT, env=arguments() | os.environ)
    for folder in RUNTIMES_BRING:
        Path(image, folder).mkdir()
    Path(image, "etc/hosts").write_text(f"127.0.0.1 localhost {QUEUE}\n")


def bring(image):
    """What a runtime mounts into a container."""
    for name, (kind, options) in RUNTIMES_BRING.items():
        subprocess.run(["mount", "-t", kind, "-o", options, kind, f"{image}/{name}"], check=True)
    for name, minor in DEVICES.items():
        os.mknod(f"{image}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(f"{image}/dev/{name}", 0o666)


def is_static(binary):
    """Whether an ELF file names no loader (64 bits, little-endian)."""
    head = binary[:64]
    assert head[:6] == b"\x7fELF\x02\x01", "an ELF file of 64 bits"
    start, size, count = int.from_bytes(head[32:40], "little"), int.from_bytes(head[54:56], "little"), int.from_bytes(head[56:58], "little")
    kinds = [int.from_bytes(binary[start + i * size :][:4], "little") for i in range(count)]
    return PT_INTERP not in kinds


def enter(image):
    """What a container runtime does between fork and exec."""
    user, group = map(int, the("USER").split(":"))
    folder = the("WORKDIR")
    libc = ctypes.CDLL(None, use_errno=True)
    profile, _ = under_seccomp.read(PROFILE), under_seccomp.library()  # loaded while its file is there

    def prepare():
        os.chroot(image)
        os.chdir(folder)
        for capability in CAPABILITIES:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        under_seccomp.apply(profile)

    return prepare


@contextmanager
def container(image, folder, *flags):
    """A node in the image: its addresses. It must end with status 0 on the Dockerfile's signal."""
    log = Path(folder, "node.log")
    [entry] = re.findall(r'"(.+?)"', the("ENTRYPOINT"))
    command = [entry, "--ws_port", "0", "--http_port", "0", "--metrics_port", "0", "--pprof_port", "0", "--swagger_port", "off", *flags]
    # Nothing of this machine's environment: the image sets none.
    with process(command, log, preexec_fn=enter(image), env={}) as running:

        def addresses():
            printed = log.read_text()
            assert running.poll() is None, f"the node ended:\n{printed}"
            return re.search(r"^ready\b", printed, re.M) and dict(re.findall(r"^listening (\w+) (\S+)$", printed, re.M))

        found = {name: address.replace("0.0.0.0", "127.0.0.1") for name, address in until("the node is ready", addresses).items()}
        yield running, found, log
        running.send_signal(getattr(signal, the("STOPSIGNAL")))
        assert running.wait(PATIENCE * 2) == 0, (running.returncode, log.read_text())


async def push_reaches(addresses):
    query = signed_query(DEMO_SECRET, pid=DEMO_PID, uid="someone", type=1)
    async with connect(f"ws://{addresses['ws']}/ws/connect?{query}&tags=news") as client:
        greeting = await asyncio.wait_for(client.recv(), PATIENCE)
        assert '"code":1' in greeting, greeting
        pushed = signed_query(DEMO_SECRET, pid=DEMO_PID, uids="someone", data='{"seen":1}')
        status, text = await asyncio.to_thread(get, f"http://{addresses['http']}/ws/push?{pushed}", "POST")
        assert status == 200, (status, text)
        frame = await asyncio.wait_for(client.recv(), PATIENCE)
        assert '{"seen":1}' in frame, frame


def check_privileges(running):
    user, group = the("USER").split(":")
    status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{running.pid}/status").read_text(), re.M))
    assert status["Uid"].split() == [user] * 4 and status["Gid"].split() == [group] * 4 and not status["Groups"].strip(), status
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")), status
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status


def check_driver(addresses):
    _, page = get(f"http://{addresses['metrics']}/metrics")
    cores = dict(re.findall(r'^ws_driver\{core="0",driver="(\w+)"\} (\d)', page, re.M))
    assert cores == {"io_uring": "1", "epoll": "0"}, cores


def check_flame_graph(addresses):
    url = f"http://{addresses['pprof']}/debug/pprof/flamegraph?seconds=2"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(get, url)
        while not asked.done():
            asyncio.run(push_reaches(addresses))
        status, svg = asked.result()
    assert status == 200 and "<svg" in svg and "ws_cluster::" in svg, (status, svg[-2000:])


def run(report, image, folder):
    with report.check("a bare chroot, without even /proc and /dev: a push reaches a client, and SIGTERM ends with 0"):
        with container(image, folder, "--env", "test") as (running, addresses, _):
            check_privileges(running)
            asyncio.run(push_reaches(addresses))
    bring(image)
    redis, port = shutil.which("redis-server"), free_port()
    assert redis, "redis-server is not installed: .ci/setup installs it"
    with process([redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], Path(folder, "redis.log")):
        flags = ["--env", "test", "--driver", "uring", "--queue", "redis", "--redis_url", f"redis://{QUEUE}:{port}/0"]
        with container(image, folder, *flags) as (running, addresses, _):
            with report.check("as a container has it, over a Redis that /etc/hosts names, on io_uring under the shipped profile"):
                check_privileges(running)
                check_driver(addresses)
                asyncio.run(push_reaches(addresses))
            with report.check("the profiler works and names functions"):
                check_flame_graph(addresses)


def main():
    if os.geteuid() != 0:
        sys.exit("image: needs root, for chroot")
    if "--inside" not in sys.argv:  # mounts stay with this process
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv, "--inside"])
    given = next((argument for argument in sys.argv[1:] if argument != "--inside"), None)
    report = Report("image")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        with report.check("the Dockerfile's commands"):
            make(image, given)
        binary = Path(image, "bin/ws-cluster")
        with report.check("the binary is static"):
            assert is_static(binary.read_bytes())
            files = sorted(str(path.relative_to(image)) for path in image.rglob("*") if path.is_file())
            print(f"{', '.join(files)}: {sum(Path(image, file).stat().st_size for file in files) / 2**20:.1f} MiB")
        try:
            os.chmod(folder, 0o755)
            run(report, image, folder)
        finally:
            for mounted in RUNTIMES_BRING:
                if os.path.ismount(f"{image}/{mounted}"):
                    subprocess.run(["umount", f"{image}/{mounted}"], check=True)
    report.end()


main()
