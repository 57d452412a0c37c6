# Shared by the commands beside this file; sourced, not run.

# Says what is wrong and what to do next, as the programs themselves do.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for next in "$@"; do printf '  next:  %s\n' "$next" >&2; done
    exit 1
}

say() { printf '== %s\n' "$*" >&2; }

need_root() {
    [ "$(id -u)" -eq 0 ] || die "cannot $1: mounting needs root, you are $(id -un)" "sudo $0"
}

# What cargo needs besides Rust.
build_packages=(gcc libc6-dev)

# Installs the Debian packages among "$@" that are missing.
apt_need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "cannot install ${missing[*]}: there is no apt-get" "install them by hand"
    say "installing ${missing[*]}"
    local log wait='-o DPkg::Lock::Timeout=300'
    log=$(mktemp)
    # Another command beside this one may be installing, too.
    # shellcheck disable=SC2086
    if ! { apt-get $wait update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get $wait install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "cannot install ${missing[*]}: apt-get failed" "apt-get install ${missing[*]}"
    fi
    rm -f "$log"
}

# Finds cargo: sudo resets PATH, so the caller's own toolchain is looked for where rustup puts it.
find_cargo() {
    local home
    for home in "${HOME:-/root}" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
        command -v cargo >/dev/null && return 0
        if [ -x "$home/.cargo/bin/cargo" ]; then
            export CARGO_HOME="${CARGO_HOME:-$home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
            PATH="$home/.cargo/bin:$PATH"
        fi
    done
    command -v cargo >/dev/null ||
        die "cannot build: cargo is not installed" "install Rust: https://rustup.rs"
}

# Runs cargo in the checkout; as the user who called sudo, so that no file there becomes root's.
build() {
    find_cargo
    apt_need "${build_packages[@]}"
    if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ "$(stat -c %U .)" = "$SUDO_USER" ]; then
        sudo -u "$SUDO_USER" env PATH="$PATH" CARGO_HOME="${CARGO_HOME:-}" \
            RUSTUP_HOME="${RUSTUP_HOME:-}" cargo "$@"
    else
        cargo "$@"
    fi
}

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline --locked |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Adds a file to the OCI layout $1 as a blob; prints its digest and size.
oci_blob() {
    local digest
    digest=$(sha256sum <"$2" | cut -d' ' -f1)
    cp "$2" "$1/blobs/sha256/$digest"
    printf 'sha256:%s %s' "$digest" "$(stat -c %s "$2")"
}

# Makes an OCI layout at $1, tagged $2, with one layer: the directory $3.
oci_layout() {
    local out=$1 tag=$2 tree=$3 work arch layer config diff manifest
    work=$(mktemp -d)
    mkdir -p "$out/blobs/sha256"
    arch=$(dpkg --print-architecture)
    [ "$arch" = i386 ] && arch=386
    tar --numeric-owner --owner=0 --group=0 --sort=name -C "$tree" -cf "$work/layer.tar" .
    diff=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
    gzip -n -c "$work/layer.tar" >"$work/layer.tgz"
    read -r -a layer <<<"$(oci_blob "$out" "$work/layer.tgz")"
    printf '{"architecture":"%s","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$arch" "$diff" >"$work/config"
    read -r -a config <<<"$(oci_blob "$out" "$work/config")"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%s}]}' \
        "${config[@]}" "${layer[@]}" >"$work/manifest"
    read -r -a manifest <<<"$(oci_blob "$out" "$work/manifest")"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
        "${manifest[@]}" "$tag" >"$out/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
    rm -rf "$work"
}
