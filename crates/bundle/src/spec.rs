//! A bundle's `config.json`: an image's configuration as a runtime's (image-spec `conversion.md`,
//! runtime-spec `config.md` and `config-linux.md`), with the surroundings that `docker run` gives.

use std::{collections::HashMap, path::PathBuf};

use cairn_types::{IdRanges, Platform};
use oci_spec::{
    OciSpecError,
    image::Config,
    runtime::{
        Capabilities, Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder,
        LinuxDeviceCgroupBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount, MountBuilder,
        Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use serde::Deserialize;

use crate::{BundleRequest, Net, seccomp, users::Identity};

/// The version whose fields are used; both runc 1.1 and crun 1.8 know it.
const VERSION: &str = "1.0.2";

/// The parts of an image's configuration that become a runtime's. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ImageDocument {
    #[serde(default)]
    pub(crate) config: Option<Config>,
    author: Option<String>,
    created: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
}

/// Everything that goes into the document.
pub(crate) struct Parts<'a> {
    pub(crate) request: &'a BundleRequest,
    pub(crate) image: &'a ImageDocument,
    pub(crate) platform: &'a Platform,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) identity: Identity,
    pub(crate) hostname: String,
    /// Destination in the container and directory of each volume.
    pub(crate) volumes: Vec<(String, PathBuf)>,
    /// This host has the unified cgroup hierarchy alone.
    pub(crate) cgroup2: bool,
}

/// The document.
pub(crate) fn spec(parts: Parts<'_>) -> Result<Spec, OciSpecError> {
    let annotations = annotations(parts.image);
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(parts.request.read_only)
        .build()?;
    let mounts = mounts(&parts)?;
    let linux = linux(&parts)?;
    let hostname = parts.hostname.clone();
    SpecBuilder::default()
        .version(VERSION)
        .process(process(parts)?)
        .root(root)
        .hostname(hostname)
        .mounts(mounts)
        .annotations(annotations)
        .linux(linux)
        .build()
}

fn process(parts: Parts<'_>) -> Result<Process, OciSpecError> {
    let capabilities = capabilities();
    // None to inherit and none ambient: a program that is not root's would get them unasked
    // (CVE-2022-24769, CVE-2022-29162).
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?;
    let user = UserBuilder::default()
        .uid(parts.identity.uid)
        .gid(parts.identity.gid)
        .additional_gids(parts.identity.groups)
        .umask(0o022_u32)
        .build()?;
    ProcessBuilder::default()
        .terminal(parts.request.tty)
        .user(user)
        .args(parts.args)
        .env(parts.env)
        .cwd(parts.cwd)
        .capabilities(sets)
        .no_new_privileges(true)
        .rlimits(Vec::new())
        .build()
}

/// Docker's, and containerd's: what software that starts as root and is not trusted commonly needs.
fn capabilities() -> Capabilities {
    Capabilities::from([
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ])
}

fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let table: &[(&str, &str, &str, &str)] = &[
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        (
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        ),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        (
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            "ro,nosuid,noexec,nodev",
        ),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        (
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid,noexec,nodev,mode=1777,size=65536k",
        ),
    ];
    let mut mounts = Vec::new();
    // First, so that the kernel's come on top. A container can put a link in the way of a volume, which
    // the next start would follow to `/dev`.
    for (destination, source) in &parts.volumes {
        let mut volume = mount(destination, "bind", "", "rbind,rw,rprivate")?;
        volume.set_source(Some(source.clone()));
        mounts.push(volume);
    }
    for (destination, kind, source, options) in table {
        mounts.push(match *destination {
            // Only who owns a network may show it.
            "/sys" if parts.request.owners.is_some() && parts.request.net == Net::Host => {
                mount(destination, "bind", "/sys", &format!("rbind,{options}"))?
            }
            // The group of terminals, which not every container has.
            "/dev/pts" if !has_group(parts, 5) => {
                let options = options.trim_end_matches(",gid=5");
                mount(destination, kind, source, options)?
            }
            _ => mount(destination, kind, source, options)?,
        });
    }
    if parts.request.net == Net::Host {
        // Without these the host's network is there and no name resolves.
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if std::fs::metadata(file).is_ok_and(|meta| meta.is_file()) {
                mounts.push(mount(
                    file,
                    "bind",
                    file,
                    "bind,ro,nosuid,nodev,noexec,rprivate",
                )?);
            }
        }
    }
    Ok(mounts)
}

fn has_group(parts: &Parts<'_>, gid: u32) -> bool {
    let owners = parts.request.owners.as_ref();
    owners.is_none_or(|map| map.groups.outside(gid).is_some())
}

fn mount(
    destination: &str,
    kind: &str,
    source: &str,
    options: &str,
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
        .build()
}

fn linux(parts: &Parts<'_>) -> Result<Linux, OciSpecError> {
    let mut namespaces = vec![
        namespace(LinuxNamespaceType::Pid)?,
        namespace(LinuxNamespaceType::Ipc)?,
        namespace(LinuxNamespaceType::Uts)?,
        namespace(LinuxNamespaceType::Mount)?,
    ];
    if parts.request.net == Net::None {
        namespaces.push(namespace(LinuxNamespaceType::Network)?);
    }
    // Docker's default: private where there is one hierarchy, the host's where there are many.
    if parts.cgroup2 {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup)?);
    }
    // No device; runtimes allow /dev/null and its like by themselves.
    let devices = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let owners = parts.request.owners.as_ref();
    if owners.is_some() {
        namespaces.push(namespace(LinuxNamespaceType::User)?);
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(
            LinuxResourcesBuilder::default()
                .devices(vec![devices])
                .build()?,
        )
        .masked_paths(strings(
            "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
             /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware \
             /sys/devices/virtual/powercap",
        ))
        .readonly_paths(strings(
            "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger",
        ))
        .seccomp(seccomp::profile(&parts.platform.architecture)?)
        .build()?;
    if let Some(map) = owners {
        linux.set_uid_mappings(Some(mappings(&map.users)?));
        linux.set_gid_mappings(Some(mappings(&map.groups)?));
    }
    Ok(linux)
}

fn mappings(ranges: &IdRanges) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = |range: &cairn_types::IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.inside)
            .host_id(range.outside)
            .size(range.count)
            .build()
    };
    ranges.ranges().iter().map(mapping).collect()
}

fn namespace(kind: LinuxNamespaceType) -> Result<LinuxNamespace, OciSpecError> {
    LinuxNamespaceBuilder::default().typ(kind).build()
}

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// The image's fields that a runtime has no field for (`conversion.md`, "Annotation Fields"), and its
/// labels, which win. Labels that runtimes and the service manager would obey are not taken over: an
/// image's author is not the host's administrator.
fn annotations(image: &ImageDocument) -> HashMap<String, String> {
    let mut annotations = HashMap::new();
    let config = image.config.as_ref();
    let ports = config
        .and_then(|config| config.exposed_ports().clone())
        .map(sorted);
    let implicit = [
        ("os", image.os.clone()),
        ("architecture", image.architecture.clone()),
        ("variant", image.variant.clone()),
        ("os.version", image.os_version.clone()),
        (
            "os.features",
            image.os_features.clone().map(|list| list.join(",")),
        ),
        ("author", image.author.clone()),
        ("created", image.created.clone()),
        (
            "stopSignal",
            config.and_then(|config| config.stop_signal().clone()),
        ),
        ("exposedPorts", ports.map(|list| list.join(","))),
    ];
    for (key, value) in implicit {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(format!("org.opencontainers.image.{key}"), value);
        }
    }
    let labels = config
        .and_then(|config| config.labels().clone())
        .unwrap_or_default();
    annotations.extend(
        labels
            .into_iter()
            .filter(|(key, _)| !key.is_empty() && !is_reserved(key)),
    );
    annotations
}

/// The labels of an image that are not passed on, in order.
pub(crate) fn withheld(image: &ImageDocument) -> Vec<String> {
    let labels = image
        .config
        .as_ref()
        .and_then(|config| config.labels().as_ref());
    let keys = labels.into_iter().flat_map(HashMap::keys);
    sorted(keys.filter(|key| is_reserved(key)).cloned().collect())
}

fn is_reserved(key: &str) -> bool {
    // crun and kata (`run.oci.`), the systemd cgroup driver (CVE-2024-3154), device injection, CRIU,
    // gVisor's mounts and flags, the handler that crun chooses, and what a sandbox is to kata and gVisor.
    [
        "run.oci.",
        "dev.gvisor.",
        "module.wasm.image/",
        "io.kubernetes.cri",
        "org.systemd.property.",
        "cdi.k8s.io/",
        "org.criu.",
        "io.katacontainers.",
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}

/// The library keeps these in a map, whose order is nobody's.
pub(crate) fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}
