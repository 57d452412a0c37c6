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
    /// How many states were looked at.
    pub states: usize,
    /// For how long, over all workers.
    pub busy: Duration,
    /// How many of them were wrong.
    pub failures: usize,
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

    /// A program that is wrong on purpose was caught, or not.
    pub(super) fn guard(&mut self, flaw: &str, states: usize, caught: Option<&str>) {
        match caught {
            Some(reason) => {
                let told = reason.lines().find(|line| !line.ends_with("[]"));
                let told = told.unwrap_or_default();
                let line = format!("{flaw}: caught by state {states}: {told}");
                self.guards.push(line);
            }
            None => {
                let line = format!("{flaw} was not caught by {states} states");
                self.failures.push(line);
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
        known.states += row.states;
        known.busy += row.busy;
        known.failures += row.failures;
    }

    /// States of all rows.
    pub fn states(&self) -> usize {
        self.rows.iter().map(|row| row.states).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for guard in &self.guards {
            writeln!(f, "{guard}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED: {failure}")?;
        }
        let head = ["file system", "engine", "writes", "flushes", "states"];
        let [name, engine, writes, flushes, states] = head;
        let (each, failed) = ("ms/state", "failed");
        writeln!(
            f,
            "\n{name:<26}{engine:<8}{writes:>8}{flushes:>9}{states:>8}{each:>10}{failed:>8}"
        )?;
        for row in &self.rows {
            let Row {
                name,
                engine,
                writes,
                flushes,
                states,
                ..
            } = row;
            let each = row.busy.as_secs_f64() * 1000.0 / (*states).max(1) as f64;
            let failed = row.failures;
            writeln!(
                f,
                "{name:<26}{engine:<8}{writes:>8}{flushes:>9}{states:>8}{each:>10.0}{failed:>8}"
            )?;
        }
        writeln!(
            f,
            "{} crash states of {} commands, {} failed, in {:.0} s; seed {}",
            self.states(),
            self.commands,
            self.failures.len(),
            self.took.as_secs_f64(),
            self.seed
        )
    }
}
