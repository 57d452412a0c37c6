"""What is imported and pulled: one image of real packages, and three whose shape is extreme.

The made ones are the same on every machine: their text is of words drawn by a fixed seed, so that it packs
about as well as programs and documents do.
"""

import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

from .host import CHECKOUT, answer, target

OCI = "application/vnd.oci.image"
POOL_BYTES = 32 << 20


class Image:
    """A layout, and the same as an archive, both in memory so that no disk is read."""

    def __init__(self, layout, work):
        work.mkdir()
        self.layout = work / "layout"
        shutil.copytree(layout, self.layout, ignore=shutil.ignore_patterns("complete"))
        self.archive = work / "image.tar"
        subprocess.run(["tar", "-C", self.layout, "-cf", self.archive, "blobs", "index.json", "oci-layout"],
                       check=True)

    def layers(self):
        """Files of its layers, lowest first."""
        read = lambda digest: json.loads((self.layout / "blobs" / digest.replace(":", "/")).read_text())
        index = json.loads((self.layout / "index.json").read_text())
        manifest = read(index["manifests"][0]["digest"])
        return [self.layout / "blobs" / layer["digest"].replace(":", "/") for layer in manifest["layers"]]


def made(name, make):
    """A layout in the target directory, made the first time."""
    out = target() / "integration" / name
    if not (out / "complete").exists():
        shutil.rmtree(out, ignore_errors=True)
        (out / "blobs/sha256").mkdir(parents=True)
        make(out)
        (out / "complete").touch()
    return out


def five(options=None):
    """Five layers of Debian packages, gzip; or the layout that was given instead."""
    if options and options.image:
        return Path(options.image)
    out = target() / "integration/real"
    subprocess.run([CHECKOUT / "integration/image", out], check=True)
    return out


def five_zstd():
    def make(out):
        shutil.rmtree(out)
        subprocess.run(["skopeo", "copy", "-q", "--dest-compress-format", "zstd", f"oci:{five()}:real",
                        f"oci:{out}:real"], check=True)
    return made("real-zstd", make)


def sixty():
    """Sixty layers of a hundred files of up to 128 KiB."""
    return made("sixty", lambda out: synthetic(out, 60, 100, lambda dice: dice.randrange(128 << 10)))


def small():
    """One layer of 100,000 files of up to 3,000 bytes."""
    return made("small", lambda out: synthetic(out, 1, 100_000, lambda dice: dice.randrange(3000)))


def single():
    """One layer of 1.2 GB, in files of 256 KiB on average."""
    return made("single", lambda out: synthetic(out, 1, 4600, lambda dice: dice.randrange(512 << 10)))


def synthetic(out, layers, files, size):
    dice, pool = random.Random(7), text_pool()
    packed = [layer(out, number, files, size, dice, pool) for number in range(layers)]
    image(out, packed)


def text_pool():
    """Text of words that are as unevenly frequent as those of a language, from which files are cut."""
    dice = random.Random(11)
    letters = "etaoinshrdlcumwfgypbvk"
    words = ["".join(dice.choices(letters, k=dice.randrange(2, 11))) for _ in range(20_000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    text = io.StringIO()
    while text.tell() < POOL_BYTES:
        text.write(" ".join(dice.choices(words, weights, k=20_000)))
        text.write("\n")
    return text.getvalue().encode()


def layer(out, number, files, size, dice, pool):
    """Adds a layer, by gzip at its default level; its descriptor and diff ID."""
    plain, packed = out / "layer.tar", out / "layer.tar.gz"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        for place in range(files):
            if place % 100 == 0:
                folder = tarfile.TarInfo(f"usr/share/layer{number}/{place // 100}")
                folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
                archive.addfile(folder)
            entry = tarfile.TarInfo(f"{folder.name}/file{place}")
            entry.size, entry.mode, entry.mtime = size(dice), 0o644, 1_700_000_000
            start = dice.randrange(len(pool) - entry.size)
            archive.addfile(entry, io.BytesIO(pool[start:start + entry.size]))
    with open(plain, "rb") as file:
        diff = hashlib.file_digest(file, "sha256").hexdigest()
    with open(packed, "wb") as file:
        subprocess.run(["gzip", "-nc", plain], stdout=file, check=True)
    plain.unlink()
    return blob_of_file(out, f"{OCI}.layer.v1.tar+gzip", packed), f"sha256:{diff}"


def image(out, layers):
    """Writes what makes an image of layers; it is called `real`."""
    arch = answer("dpkg --print-architecture")
    diffs = [diff for _, diff in layers]
    config = {"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json",
                "config": blob(out, f"{OCI}.config.v1+json", json.dumps(config).encode()),
                "layers": [descriptor for descriptor, _ in layers]}
    listed = blob(out, f"{OCI}.manifest.v1+json", json.dumps(manifest).encode())
    listed["annotations"] = {"org.opencontainers.image.ref.name": "real"}
    (out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (out / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def blob(out, media_type, data):
    digest = hashlib.sha256(data).hexdigest()
    (out / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def blob_of_file(out, media_type, path):
    """The same of a file, which is moved."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.rename(out / "blobs/sha256" / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
