//! What came of it.

use std::{fmt, time::Duration};

/// One file system with one engine.
#[derive(Debug)]
pub struct Row {
    /// The file system; with a word where it is an opening that was cut off.
    pub name: String,
    /// What kept the records.
    pub engine: &'static str,
    /// What the disk was told.
    pub writes: usize,
    /// How often it was told to flush.
    pub flushes: usize,
    /// How many states were to be looked at.
    pub asked: usize,
    /// How many were.
    pub states: usize,
    /// In how many of them images were mounted.
    pub mounted: usize,
    /// In how many the store was checked and used.
    pub used: usize,
    /// In how many every byte of it was read.
    pub deep: usize,
    /// For how long, over all workers.
    pub busy: Duration,
    /// How many of them were wrong.
    pub failures: usize,
}

/// A program that is wrong on purpose.
pub(super) struct Guard {
    /// The word that makes it so.
    pub(super) flaw: &'static str,
    pub(super) kind: &'static str,
    pub(super) engine: &'static str,
    /// It has to be caught there.
    pub(super) sure: bool,
    /// How many states were looked at.
    pub(super) states: usize,
    /// What the last of them lacks.
    pub(super) caught: Option<String>,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    commands: usize,
    /// One for each file system and engine.
    pub rows: Vec<Row>,
    /// What is wrong with states, or with this lane.
    pub failures: Vec<String>,
    guards: Vec<String>,
    /// From begin to end.
    pub took: Duration,
}

impl Report {
    /// Of a life of so many commands.
    pub(super) fn new(seed: u64, commands: usize) -> Report {
        Report {
            seed,
            commands,
            rows: Vec::new(),
            failures: Vec::new(),
            guards: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// A program that is wrong on purpose was caught by what it loses, or not.
    pub(super) fn guard(&mut self, guard: Guard) {
        let Guard {
            flaw,
            kind,
            engine,
            sure,
            states,
            caught,
        } = guard;
        let what = format!("{flaw} on {kind} with {engine}");
        match caught {
            Some(reason) => {
                let told = reason.lines().find(|line| !line.ends_with("[]"));
                let told = told.unwrap_or_default();
                let line = format!("{what}: caught by state {states}: {told}");
                self.guards.push(line);
            }
            None => {
                let line = format!("{what}: not caught by {states} states");
                match sure {
                    true => self.failures.push(line),
                    false => self.guards.push(line),
                }
            }
        }
    }

    /// Takes figures in; rows of one name and engine are one.
    pub(super) fn add(&mut self, row: Row) {
        let same = |known: &&mut Row| known.name == row.name && known.engine == row.engine;
        let Some(known) = self.rows.iter_mut().find(same) else {
            self.rows.push(row);
            return;
        };
        known.writes += row.writes;
        known.flushes += row.flushes;
        known.asked += row.asked;
        known.states += row.states;
        known.mounted += row.mounted;
        known.used += row.used;
        known.deep += row.deep;
        known.busy += row.busy;
        known.failures += row.failures;
    }

    /// States of all rows.
    pub fn states(&self) -> usize {
        self.rows.iter().map(|row| row.states).sum()
    }

    /// A lane that looks at little finds little: nine in ten of what was asked for, and something of
    /// every kind.
    pub(super) fn expect(&mut self, asked: usize) {
        let mut lacking = Vec::new();
        if self.states() * 10 < asked * 9 {
            let states = self.states();
            lacking.push(format!("{states} states were looked at of {asked}"));
        }
        for row in &self.rows {
            let few = row.states * 10 < row.asked * 9;
            // Each eighth is used, so that one of a few may not be.
            let unused = row.states >= USED_AMONG && (row.used == 0 || row.mounted == 0);
            if row.states == 0 || few || unused {
                lacking.push(format!("too little was looked at: {row:?}"));
            }
        }
        // What is wrong with states ends the lane before its time.
        if self.failures.is_empty() {
            self.failures = lacking;
        }
    }
}

/// Of so many states some are used.
const USED_AMONG: usize = 16;

/// A table in Markdown: what was looked at, and how.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for guard in &self.guards {
            writeln!(f, "{guard}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED: {failure}")?;
        }
        writeln!(
            f,
            "\n| file system | engine | writes | flushes | states | mounted | used | read whole \
             | ms/state | failed |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            let Row {
                name,
                engine,
                writes,
                flushes,
                states,
                mounted,
                used,
                deep,
                ..
            } = row;
            let each = row.busy.as_secs_f64() * 1000.0 / (*states).max(1) as f64;
            let failed = row.failures;
            writeln!(
                f,
                "| {name} | {engine} | {writes} | {flushes} | {states} | {mounted} | {used} | {deep} \
                 | {each:.0} | {failed} |"
            )?;
        }
        let sum = |of: fn(&Row) -> usize| self.rows.iter().map(of).sum::<usize>();
        writeln!(
            f,
            "{} crash states of {} commands, {} mounted, {} used, {} failed, in {:.0} s; seed {}",
            self.states(),
            self.commands,
            sum(|row| row.mounted),
            sum(|row| row.used),
            self.failures.len(),
            self.took.as_secs_f64(),
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(states: usize, used: usize) -> Row {
        Row {
            name: "ext4".to_owned(),
            engine: "redb",
            writes: 1,
            flushes: 1,
            asked: 100,
            states,
            mounted: used,
            used,
            deep: 0,
            busy: Duration::ZERO,
            failures: 0,
        }
    }

    #[test]
    fn little_is_not_enough() {
        for (states, used, asked, fails) in [
            (95, 12, 100, false),
            (95, 12, 200, true),
            (80, 10, 80, true),
            (95, 0, 100, true),
            (0, 0, 0, true),
        ] {
            let mut report = Report::new(1, 1);
            report.add(row(states, used));
            report.expect(asked);
            assert_eq!(!report.failures.is_empty(), fails, "{states} of {asked}");
        }
    }

    #[test]
    fn rows_of_one_kind_are_one() {
        let mut report = Report::new(1, 1);
        report.add(row(95, 12));
        report.add(row(96, 13));
        assert_eq!(report.rows.len(), 1);
        assert_eq!((report.states(), report.rows[0].used), (191, 25));
        assert!(
            report
                .to_string()
                .contains("| ext4 | redb | 2 | 2 | 191 | 25 | 25 | 0 |")
        );
    }
}
