//! Overlay by `mount(2)`, for kernels before 6.7: all options in one string, which must fit a page.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountAttrFlags, MountFlags},
};

use super::{SWITCHED_OFF, escape, knows, too_long};
use crate::{Error, Result, fault};

/// What the kernel copies of an option string; it cuts what is longer, without an error.
const OPTIONS_BYTES_MAX: usize = 4095;

/// As [`super::overlay`], but refuses (`E2BIG`) what does not fit.
pub(super) fn overlay(
    target: &Path,
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    attributes: MountAttrFlags,
    options: &[String],
) -> Result<()> {
    let quoted: Vec<String> = lowers.iter().map(|lower| escape(lower)).collect();
    let mut words = vec![format!("lowerdir={}", quoted.join(":"))];
    if let Some((upper, work)) = upper_work {
        words.push(format!("upperdir={}", escape(upper)));
        words.push(format!("workdir={}", escape(work)));
    }
    let off = SWITCHED_OFF.iter().filter(|(key, _)| knows(key));
    words.extend(off.map(|(key, value)| format!("{key}={value}")));
    words.extend_from_slice(options);
    let text = words.join(",");
    if text.len() > OPTIONS_BYTES_MAX {
        return Err(too_long(target, lowers.len()));
    }
    let text = CString::new(text)
        .map_err(|_| Error::new("mount overlay", target.display().to_string(), Errno::INVAL))?;
    let mut flags = MountFlags::empty();
    for (attribute, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
    ] {
        flags.set(flag, attributes.contains(attribute));
    }
    let mount = || rustix::mount::mount("overlay", target, "overlay", flags, &*text);
    fault::call("mount overlay", || target.display().to_string(), mount)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mount::{is_mount_point, unmount};

    /// The kernel that runs this takes both ways, so the old one can be tried on it.
    #[test]
    fn k01_mounts_what_fits_and_refuses_what_would_be_cut() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let target = temp.path().join("t");
        fs::create_dir(&target).expect("target");
        let lowers: Vec<PathBuf> = (0..201)
            .map(|i| {
                let lower = temp.path().join(format!("{i},a:b\\c"));
                fs::create_dir(&lower).expect("lower");
                fs::write(lower.join(format!("f{i}")), "").expect("file");
                lower
            })
            .collect();
        let off = ["index=off".to_owned()];
        overlay(
            &target,
            &lowers[..60],
            None,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
            &off,
        )
        .expect("mount");
        assert_eq!(fs::read_dir(&target).expect("list").count(), 60);
        unmount(&target).expect("unmount");
        let err = overlay(
            &target,
            &lowers,
            None,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
            &off,
        )
        .expect_err("longer than a page");
        assert!(err.is(Errno::TOOBIG), "{err}");
        assert!(!is_mount_point(&target).expect("statx"));
    }
}
