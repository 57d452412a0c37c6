//! The commands that make mounts, for a shell.

use std::path::{Path, PathBuf};

use crate::{error::quote, model::Mount};

/// Longest options that mount(8) can hand to the kernel: one page with its zero (`mount(2)`).
const OPTIONS_BYTES_MAX: usize = 4095;

/// The commands that make the mounts at `target`; `None` when one of them is more than mount(8) can be
/// told of, which is so for some hundreds of layers.
pub fn mounts(mounts: &[Mount], target: &Path) -> Option<String> {
    let lines = mounts.iter().map(|mount| line(mount, target));
    lines.collect()
}

fn line(mount: &Mount, target: &Path) -> Option<String> {
    let mut at = match &*mount.target {
        "" => target.to_owned(),
        below => target.join(below.trim_start_matches('/')),
    };
    let mut options = mount.options.join(",");
    let mut from = None;
    if options.len() > OPTIONS_BYTES_MAX {
        let dir = common(&options)?;
        options = options.replace(&format!("{dir}/"), "");
        at = std::path::absolute(&at).ok()?;
        from = Some(dir);
    }
    let command = format!(
        "mount -t {} {} {} -o {}",
        quote(&mount.kind),
        quote(&mount.source),
        quote(&at.to_string_lossy()),
        quote(&options)
    );
    (options.len() <= OPTIONS_BYTES_MAX).then(|| match from {
        // Overlay finds its directories from where it is asked for.
        Some(dir) => format!("(cd {} && {command})\n", quote(&dir)),
        None => format!("{command}\n"),
    })
}

/// The directory in which all directories of an overlay are, as `DIR/1/fs`. One whose name has to be
/// escaped in options is left as it is.
fn common(options: &str) -> Option<String> {
    let lowers = options.split("lowerdir=").nth(1)?;
    let first = PathBuf::from(lowers.split([':', ',']).next()?);
    let dir = first.parent()?.parent()?.to_str()?.to_owned();
    (dir.len() > 1 && !dir.contains('\\')).then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: Vec<String>) -> Mount {
        Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }
    }

    #[test]
    fn a_mount_line_is_for_a_shell() {
        let options = ["index=off", "lowerdir=/a b/1:/a b/2"];
        let overlay = overlay(options.map(str::to_owned).to_vec());
        let below = Mount {
            kind: "bind".to_owned(),
            source: "/src".to_owned(),
            target: "/etc".to_owned(),
            options: vec!["ro".to_owned(), "rbind".to_owned()],
        };
        assert_eq!(
            mounts(&[overlay, below], Path::new("/my mnt")),
            "\
mount -t overlay overlay '/my mnt' -o 'index=off,lowerdir=/a b/1:/a b/2'
mount -t bind /src '/my mnt/etc' -o 'ro,rbind'
"
            .to_owned()
            .into()
        );
    }

    #[test]
    fn many_layers_are_named_from_their_directory() {
        let stack = |layers: usize| {
            let lowers: Vec<String> = (0..layers)
                .map(|n| format!("/store/snapshots/{n}/fs"))
                .collect();
            overlay(vec![
                "workdir=/store/snapshots/999/work".to_owned(),
                "upperdir=/store/snapshots/999/fs".to_owned(),
                format!("lowerdir={}", lowers.join(":")),
            ])
        };
        let short = mounts(&[stack(100)], Path::new("mnt")).expect("fits");
        assert!(
            short.starts_with("mount -t overlay overlay mnt -o 'workdir=/store/"),
            "{short}"
        );
        let long = mounts(&[stack(300)], Path::new("/mnt")).expect("fits");
        let begin = "(cd /store/snapshots && mount -t overlay overlay /mnt -o \
                     'workdir=999/work,upperdir=999/fs,lowerdir=0/fs:1/fs:";
        assert!(long.starts_with(begin), "{long}");
        assert!(long.ends_with(":299/fs')\n"), "{long}");
        assert_eq!(mounts(&[stack(900)], Path::new("/mnt")), None);
    }
}
