# A machine of its own for a test: this one's files below a layer that is thrown away, and systemd as
# its first process. Called in a mount namespace with an empty directory; prints the first process's
# id. It ends with standard input, so with whoever started it, however that ends.
set -eu
files=$1
root=$files/root

build() {
    # Neither an upper directory nor a store can lie on an overlay, and a disk may be one.
    mount -t tmpfs -o mode=755 tmpfs "$files"
    mkdir "$files/upper" "$files/work" "$files/cgroups" "$root"
    mount -t overlay -o "lowerdir=/,upperdir=$files/upper,workdir=$files/work" overlay "$root"
    for dir in dev run tmp var/lib; do
        mkdir -p "$root/$dir"
        mount -t tmpfs -o mode=755 tmpfs "$root/$dir"
    done
    chmod 1777 "$root/tmp"
    mknod -m 666 "$root/dev/null" c 1 3
    mknod -m 666 "$root/dev/zero" c 1 5
    mknod -m 666 "$root/dev/full" c 1 7
    mknod -m 666 "$root/dev/random" c 1 8
    mknod -m 666 "$root/dev/urandom" c 1 9
    mknod -m 666 "$root/dev/tty" c 5 0
    ln -s /proc/self/fd "$root/dev/fd"
    configure
}

# None of this machine's services are wanted, and of systemd's own none that is about hardware, log-ins
# or other people's files.
configure() {
    units=$root/etc/systemd/system
    rm -rf "$units"
    mkdir -p "$units"
    for unit in dbus.service dbus.socket dev-hugepages.mount getty.target sys-fs-fuse-connections.mount \
        systemd-binfmt.service systemd-logind.service systemd-modules-load.service \
        systemd-remount-fs.service systemd-udevd.service systemd-udevd-control.socket \
        systemd-udevd-kernel.socket timers.target; do
        ln -s /dev/null "$units/$unit"
    done
    : >"$root/etc/fstab"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    echo machine >"$root/etc/hostname"
}

# In the machine's namespaces: what shows them, and what would change the kernel for all is not for it
# to write to.
boot() {
    # The old /proc counts processes as the test does.
    read -r pid _ </proc/self/stat
    mount -t proc proc "$root/proc"
    for file in "$root/proc/sys" "$root/proc/sysrq-trigger"; do
        [ -e "$file" ] || continue
        mount --bind "$file" "$file"
        mount -o remount,bind,ro "$file"
    done
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    echo "$pid"
    exec >&2
    exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog \
        chroot "$root" /usr/bin/env -i container=test LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target --show-status=no
}

if [ "${2-}" = boot ]; then boot; fi

trap '' INT TERM HUP
build
# Of version 2, which can be mounted beside any other.
mount -t cgroup2 cgroup2 "$files/cgroups"
cgroup=$(mktemp -d "$files/cgroups/cairn-machine-XXXXXX")
(
    echo 0 >"$cgroup/cgroup.procs"
    trap - INT TERM HUP
    exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup \
        sh "$0" "$files" boot
) </dev/null &
read -r _ || :
kill -KILL $! || :
wait
# The last of its processes may still be ending.
for _ in $(seq 100); do
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
done
