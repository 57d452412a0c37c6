//! Go's tests, built once from what Debian packages of containerd and run against a daemon.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::cairn::Cairn;

/// A program of tests.
pub struct Program(PathBuf);

/// What a run of them printed, in Go's verbose form.
pub struct Run {
    /// All of it.
    pub printed: String,
    /// Whether Go calls it a success.
    pub success: bool,
}

impl Program {
    /// Builds the package in this directory of `integration`, into the target directory; Go remembers
    /// what it built.
    pub fn build(package: &str) -> Program {
        let target = Cairn::binary().with_file_name(format!("{package}.test"));
        let mut command = Command::new("go");
        command.args(["test", "-c", "-o"]).arg(&target).arg(".");
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(package));
        // Debian's Go libraries, which are no modules.
        command.env("GO111MODULE", "off");
        command.env("GOPATH", "/usr/share/gocode");
        command.env("GOFLAGS", "");
        let built = command.output().expect("start go");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "go test -c: {said}");
        Program(target)
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(&self.0);
        let ran = command.arg("-test.v").args(arguments).output();
        let ran = ran.expect("start the tests");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Run {
            printed: text(&ran.stdout) + &text(&ran.stderr),
            success: ran.status.success(),
        }
    }
}

impl Run {
    /// Tests and their parts, by how they ended, as Go marks them: `PASS`, `FAIL`, `SKIP`.
    pub fn ended(&self, how: &str) -> Vec<&str> {
        let mark = format!("--- {how}: ");
        let lines = self.printed.lines().filter_map(|line| {
            let (before, case) = line.split_once(&mark)?;
            before.trim().is_empty().then_some(case)
        });
        lines.filter_map(|case| case.split(' ').next()).collect()
    }

    /// Expects that none failed.
    #[track_caller]
    pub fn passes(&self) {
        let failed = self.ended("FAIL");
        assert!(
            self.success && failed.is_empty(),
            "{failed:?}\n{}",
            self.printed
        );
    }
}
