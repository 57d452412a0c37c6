"""Fresh file systems, and what is installed and built."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
IMAGE_BYTES = 16 << 30
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}


def shell(command, **options):
    """A line of bash that knows the functions of lib.sh."""
    library = CHECKOUT / "integration/lib.sh"
    return subprocess.run(["bash", "-c", f". {library}; {command}"], check=True, cwd=CHECKOUT, **options)


def answer(command):
    return shell(command, capture_output=True, text=True).stdout.strip()


def fail(message, hint):
    sys.exit(f"error: {message}\n  next:  {hint}")


def need(*packages):
    shell(f"need_root measure; apt_need {' '.join(packages)}")


def prefer(directory, *programs):
    """Has programs of a directory run instead of those that are installed; the first one's version."""
    directory = Path(directory).resolve()
    for program in programs:
        if not os.access(directory / program, os.X_OK):
            fail(f"no program {directory / program}", "name the directory that both are in")
    os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
    return subprocess.run([programs[0], "--version"], check=True, capture_output=True, text=True).stdout.strip()


def built():
    """Builds both programs as they are installed, and those that measure them; the directory where they are then."""
    # Always by the same two lines: with another choice of packages cargo would build much of it again.
    dist = "build build --profile dist --locked -q"
    shell(f"{dist} -p cairn -p cairnd; {dist} -p cairn-integration --features rates"
          " --bin cairn-rates --bin cairn-bare --bin cairn-throttle")
    return target() / "dist"


def target():
    return Path(answer("find_cargo; target_dir"))


def described():
    """The machine, in a line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {platform.release()} {platform.machine()}"


class Disk:
    """A fresh file system on a loop device over tmpfs, gone at the end."""

    def __init__(self, kind="ext4", options=(), size=IMAGE_BYTES):
        self.kind, self.options, self.size = kind, list(options), size
        self.file = Path("/dev/shm") / f"cairn-bench-{os.getpid()}.img"
        self.path = Path(tempfile.mkdtemp(prefix="cairn-bench-"))

    def __enter__(self):
        with open(self.file, "wb") as file:
            file.truncate(self.size)
        subprocess.run([*MAKE[self.kind], *self.options, self.file], check=True)
        subprocess.run(["mount", "-o", "loop", self.file, self.path], check=True)
        found = subprocess.run(["findmnt", "-no", "SOURCE", self.path], check=True, capture_output=True, text=True)
        self.device = Path(found.stdout.strip()).name
        self.base = self.sectors()
        return self

    def __exit__(self, *_):
        for _ in range(100):
            if subprocess.run(["umount", "-R", self.path], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        self.file.unlink()
        self.path.rmdir()

    def sectors(self):
        return int(Path(f"/sys/class/block/{self.device}/stat").read_text().split()[6])

    def written(self):
        """Bytes that went to the device since it was mounted, with what is still to be written."""
        subprocess.run(["sync", "-f", self.path], check=True)
        return (self.sectors() - self.base) * 512
