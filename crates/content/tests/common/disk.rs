//! A fresh file system in memory, behind a loop device.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

/// Mounted for as long as it is there.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    /// Of 512 MiB, made by `mkfs.<kind>`.
    pub(crate) fn new(kind: &str) -> Disk {
        let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
        let (image, mounted) = (dir.path().join("image"), dir.path().join("disk"));
        let file = File::create(&image).expect("image");
        file.set_len(512 << 20).expect("size");
        fs::create_dir(&mounted).expect("mount point");
        let disk = Disk(dir);
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &mounted]));
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that another test is about to start has our descriptors until it is another.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What a command that must succeed says.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("start");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
