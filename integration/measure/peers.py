"""Daemons and commands, each as its users run it. Places are directories of a fresh file system."""

import os
import signal
import socket
import subprocess
import time

from .host import fail
from .usage import measure


def wait_for(ready, what):
    for _ in range(1200):
        if ready():
            return
        time.sleep(0.05)
    fail(f"{what} does not answer", "start it by hand")


class Daemon:
    """A daemon, for as long as it is used."""

    def __init__(self, place):
        self.place, self.process = place, None

    def command(self):
        raise NotImplementedError

    def client(self):
        """How its client is called."""
        raise NotImplementedError

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Starts it; the seconds until it says that it is ready, as a service manager hears it (sd_notify(3))."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            path = self.place / "notify"
            path.unlink(missing_ok=True)
            notified.bind(str(path))
            notified.settimeout(120)
            self.log = open(self.place / f"{self.name}.log", "ab")
            begun = time.monotonic()
            self.process = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log,
                                            env=os.environ | {"NOTIFY_SOCKET": str(path)})
            while b"READY=1" not in notified.recv(4096):
                pass
            return time.monotonic() - begun

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()

    def said(self):
        return (self.place / f"{self.name}.log").read_text(errors="replace")[-2000:]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class Containerd(Daemon):
    name = "containerd"

    def command(self):
        config = self.place / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.place}/root"\nstate = "{self.place}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.socket}"\n')
        return ["containerd", "--config", config]

    @property
    def socket(self):
        return self.place / "sock"

    def client(self):
        return ["ctr", "--address", self.socket]


class Cairnd(Daemon):
    name = "cairnd"

    def __init__(self, place, binaries):
        super().__init__(place)
        self.binaries = binaries

    def command(self):
        return [self.binaries / "cairnd", "--root", self.place / "cairn", "--state", self.place / "cairn-state",
                "--address", self.socket]

    @property
    def socket(self):
        return self.place / "cairn.sock"

    def client(self):
        return [self.binaries / "cairn", "--address", self.socket]


def daemons(binaries):
    """How to make either of both, for a place."""
    return {"cairn": lambda place: Cairnd(place, binaries), "containerd": Containerd}


class Registry:
    """docker-registry on the loopback address, its blobs in memory, for as long as it is used."""

    def __init__(self, work):
        self.work = work
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.host = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self):
        config = self.work / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.work}/registry}}}}\nhttp: {{addr: '{self.host}'}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, "docker-registry")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def answers(self):
        host, port = self.host.split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def push(self, layout, tag):
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:real",
                        f"docker://{self.host}/bench/real:{tag}"], check=True)


class Throttle:
    """A host that passes a registry on at so many bytes a second for each connection."""

    def __init__(self, binary, registry, rate):
        self.command = [binary, registry.host, str(rate)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.host = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def podman(place):
    """How podman is called with a store of its own."""
    return ["env", f"TMPDIR={temporary(place)}", "podman", "--root", f"{place}/graph", "--runroot", f"{place}/run",
            "--storage-driver", "overlay"]


def temporary(place):
    (place / "tmp").mkdir(exist_ok=True)
    return place / "tmp"


def skopeo_copy(place, source, *more):
    """To containers-storage, unpacked."""
    store = f"containers-storage:[overlay@{place}/graph+{place}/run]localhost/real:1"
    return measure(["env", f"TMPDIR={temporary(place)}", "skopeo", "copy", "-q", *more, source, store])
