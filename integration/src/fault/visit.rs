//! One fault in one command, and everything that has to be true of what comes of it.

use std::{fs, os::unix::process::ExitStatusExt, process::Output};

use super::{
    Bench, Reference, Step, Verdict,
    bench::{last, told},
    records::{Records, Stage},
    reference::Life,
};

/// Every so many visits read every byte in the end.
const DEEP_EVERY: usize = 4;

/// Where a fault comes to pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// The command, by its index.
    pub(super) step: usize,
    /// In a daemon that does it, not in the program itself.
    pub(super) served: bool,
    /// The text for the program.
    pub(super) fault: String,
    /// When the store is opened after it, the process is killed at this call of that.
    pub(super) again: Option<u64>,
}

/// How a command with a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The fault did not come to pass: there were fewer calls.
    Untouched,
    /// By the kill.
    Killed,
    /// By the kill, when it had answered.
    Answered,
    /// With an error.
    Failed,
    /// As if nothing had happened.
    Succeeded,
}

/// What a visit came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visited {
    pub(super) ended: Ended,
    /// It was killed once more when it was opened.
    pub(super) again: bool,
}

/// What became of a command, whoever did it.
pub(super) struct Did {
    /// It was answered with success.
    pub(super) good: bool,
    /// It was refused, with an error that says what.
    pub(super) refused: bool,
    /// Whoever was to be hit was killed.
    pub(super) killed: bool,
    /// What all said on stderr.
    pub(super) said: String,
}

/// It failed, and says what; a check says what it could not read.
pub(super) fn is_refused(output: &Output, said: &str, step: Option<&Step>) -> bool {
    let tells = said.contains("error: cannot ") || step.is_some_and(Step::is_check);
    output.status.code() == Some(1) && tells
}

impl Did {
    fn alone(output: &Output, step: Option<&Step>) -> Did {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Did {
            good: output.status.success(),
            refused: is_refused(output, &said, step),
            killed: output.status.signal() == Some(9),
            said,
        }
    }

    /// How it ended, if it ended as it may.
    fn judge(&self, fault: &str) -> Verdict<Ended> {
        let fired = self.said.contains("cairn-fault: ");
        let (kind, _) = fault.split_once('@').expect("KIND@N");
        let ended = match (self.killed, self.good, self.refused) {
            _ if self.said.contains("panicked") => Err("a panic"),
            (true, true, _) if fired => Ok(Ended::Answered),
            (true, false, _) if fired => Ok(Ended::Killed),
            (false, true, _) if fired => Ok(Ended::Succeeded),
            (false, true, _) => Ok(Ended::Untouched),
            (false, false, true) if fired => Ok(Ended::Failed),
            _ => Err("no way to end"),
        };
        let ended = ended.and_then(|ended| match (kind, ended) {
            (_, Ended::Untouched) => Ok(ended),
            ("kill" | "kill-after", Ended::Killed | Ended::Answered) => Ok(ended),
            ("EINTR" | "short", Ended::Succeeded) => Ok(ended),
            ("kill" | "kill-after" | "EINTR" | "short", _) => Err("not the way to end"),
            (_, Ended::Failed | Ended::Succeeded) => Ok(ended),
            _ => Err("not the way to end"),
        });
        ended.map_err(|reason| format!("{reason}: it said\n{}", last(&self.said)))
    }
}

impl Bench {
    /// Does one step with one fault, and judges everything that comes of it; `number` says whether what
    /// is not looked at each time is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn visit(
        &self,
        reference: &Reference,
        point: &Point,
        number: usize,
    ) -> Verdict<Visited> {
        let life = &reference.lives[point.step];
        self.before(reference, life.step)?;
        let did = match point.served {
            false => {
                let (args, stdin) = (life.step.args, life.step.stdin);
                let output = self.run(args, stdin, Some(&point.fault));
                Did::alone(&output, Some(life.step))
            }
            true => self.serve(life.step, &point.fault)?,
        };
        let ended = did.judge(&point.fault)?;
        let judged = self.judge(reference, life, point, ended, number);
        let again = judged.map_err(|reason| format!("{reason}\nafter it {}", last(&did.said)))?;
        Ok(Visited { ended, again })
    }

    /// Opens what is left, looks, does the same again, and looks once more; whether it was killed when it
    /// was opened.
    fn judge(
        &self,
        reference: &Reference,
        life: &Life,
        point: &Point,
        ended: Ended,
        number: usize,
    ) -> Verdict<bool> {
        let step = life.step;
        let again = match point.again {
            Some(call) => self.killed_opening(call)?,
            None => false,
        };
        let found = match step.damaged {
            true => self.records()?,
            false => self.look(false)?,
        };
        let stage = self.stage(reference, life, &found)?;
        let acknowledged = !matches!(ended, Ended::Killed | Ended::Failed);
        let unnoted = step.is_pull() && ended == Ended::Succeeded && stage == Stage::Part;
        if acknowledged && stage != Stage::All && !unnoted {
            return Err(format!("it was answered, and is done in part: {found:?}"));
        }
        self.examine_images(reference, &found)?;
        self.repeat(step, stage)?;
        self.check_leaves(reference, step)?;
        let deep = step.damaged || number.is_multiple_of(DEEP_EVERY);
        let found = self.look(deep)?;
        life.after.same(&found.settled())?;
        self.examine_images(reference, &found)?;
        self.examine_trees(reference, &found)?;
        self.empty()?;
        Ok(again)
    }

    /// How far the command came, by the records and by what is beside them.
    fn stage(&self, reference: &Reference, life: &Life, found: &Records) -> Verdict<Stage> {
        let step = life.step;
        let known = match step.uploads {
            true => [&life.before, &life.after, found].map(Records::without_uploads),
            false => [&life.before, &life.after, found].map(Records::clone),
        };
        let [before, after, found] = known;
        let stage = found.stage(&before, &after)?;
        if step.whole && stage == Stage::Part {
            return Err(format!("done by half, in {found:?}"));
        }
        let beside = self.check_leaves(reference, step).is_ok();
        Ok(match (stage, beside) {
            (Stage::All, false) => Stage::Part,
            (Stage::Nothing, true) if !life.beside => Stage::Part,
            _ => stage,
        })
    }

    /// Another process dies when it opens what the first has left; whether it came so far.
    fn killed_opening(&self, call: u64) -> Verdict<bool> {
        let fault = format!("kill@{call}");
        let output = self.run(&["images", "ls"], None, Some(&fault));
        match Did::alone(&output, None).judge(&fault) {
            Ok(Ended::Killed) => Ok(true),
            Ok(Ended::Untouched) => Ok(false),
            _ => Err(format!("opening, with {fault}, {}", told(&output))),
        }
    }

    /// The same command again finishes what is left to do. What was done in full is refused as that, and
    /// what was not begun is not.
    pub(super) fn repeat(&self, step: &Step, stage: Stage) -> Verdict {
        let output = self.run(step.args, step.stdin, None);
        match stage.wrong_again(step.done, &output) {
            None => Ok(()),
            Some(wrong) => Err(format!(
                "the same command again: {wrong}; it {}",
                told(&output)
            )),
        }
    }

    /// What is beside the store after a step, and nothing else is.
    pub(super) fn check_leaves(&self, reference: &Reference, step: &Step) -> Verdict {
        let leaves = |name: &str| step.leaves.contains(&name);
        let mounted = self.is_mounted("mnt");
        if mounted != leaves("mnt") {
            return Err(format!("mnt is mounted: {mounted}"));
        }
        let bundle = self.bundle()?;
        let wanted = step.leaves.iter().find(|name| BUNDLES.contains(name));
        if bundle != wanted.copied() {
            return Err(format!("the bundle is there: {bundle:?}"));
        }
        if leaves("out.tar") {
            let file = self.work().join("out.tar");
            let bytes = fs::read(file).map_err(|err| format!("out.tar: {err}"))?;
            if bytes != reference.exported {
                return Err("out.tar has other bytes".to_owned());
            }
        }
        Ok(())
    }

    /// Which kind of bundle is there; by half is an error.
    fn bundle(&self) -> Verdict<Option<&'static str>> {
        let dir = self.work().join("bundle");
        let whole = dir.join("config.json").exists();
        let files = dir.join("rootfs/bin/tool").exists();
        match (dir.exists(), whole, self.is_mounted("bundle/rootfs")) {
            (false, ..) => Ok(None),
            (true, true, true) if files => Ok(Some("bundle")),
            (true, true, false) if files => Ok(Some("copy")),
            (_, config, mounted) => Err(format!(
                "half a bundle is there: configuration {config}, mounted {mounted}, files {files}"
            )),
        }
    }
}

const BUNDLES: [&str; 2] = ["bundle", "copy"];

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(good: bool, killed: bool, said: &str, fault: &str) -> Option<Ended> {
        let did = Did {
            good,
            refused: said.contains("error: cannot "),
            killed,
            said: said.to_owned(),
        };
        did.judge(fault).ok()
    }

    #[test]
    fn each_fault_has_its_ends() {
        let fired = "cairn-fault: Kill fsync x n=3\n";
        let failed = format!("{fired}error: cannot put");
        let failed = failed.as_str();
        assert_eq!(ended(false, true, fired, "kill@3"), Some(Ended::Killed));
        assert_eq!(ended(true, true, fired, "kill@3"), Some(Ended::Answered));
        assert_eq!(ended(true, false, "", "kill@3"), Some(Ended::Untouched));
        assert_eq!(ended(false, false, failed, "EIO@3"), Some(Ended::Failed));
        assert_eq!(ended(true, false, fired, "EINTR@3"), Some(Ended::Succeeded));
        for (good, killed, said, fault) in [
            (true, false, fired, "kill@3"),
            (false, false, failed, "short@3"),
            (false, false, "error: cannot put", "EIO@3"),
            (false, false, fired, "EIO@3"),
            (false, true, fired, "EIO@3"),
            (true, false, "panicked at", "EIO@3"),
        ] {
            assert_eq!(ended(good, killed, said, fault), None, "{fault}: {said}");
        }
    }
}
