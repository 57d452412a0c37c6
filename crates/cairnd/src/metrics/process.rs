//! The figures that every client library of Prometheus has of its process, from `/proc/self`.
//!
//! They are written here and not by the recorder: its counters are whole numbers, and time on processors
//! is a counter with fractions.

use std::{fmt::Write, fs};

/// Reads them anew and appends them in Prometheus' text. What cannot be read is left out.
pub(super) fn write(out: &mut String) {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the reading itself.
        let open = entries.count().saturating_sub(1);
        one(out, "process_open_fds", "Open file descriptors.", open);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        let help = "Most file descriptors that may be open.";
        one(out, "process_max_fds", help, limit);
    }
    let stat = fs::read_to_string("/proc/self/stat").ok();
    if let Some(stat) = stat.and_then(|stat| Stat::parse(&stat)) {
        stat.write(out);
    }
}

/// Appends one family of one sample.
fn one(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    // Clients of Prometheus go by the end of a name as well.
    let kind = if name.ends_with("_total") {
        "counter"
    } else {
        "gauge"
    };
    let _ = writeln!(
        out,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    );
}

/// In seconds.
fn seconds(ticks: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "figures are floats")]
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    seconds
}

/// When the machine was started, in seconds since 1970.
fn booted() -> Option<u32> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.parse().ok()
}

/// Of proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn write(&self, out: &mut String) {
        let help = "Time on processors, in seconds.";
        let cpu = seconds(self.cpu_ticks);
        one(out, "process_cpu_seconds_total", help, cpu);
        one(out, "process_threads", "Threads.", self.threads);
        let bytes = self.virtual_bytes;
        one(out, "process_virtual_memory_bytes", "Address space.", bytes);
        let bytes = self.resident_pages * rustix::param::page_size() as u64;
        one(
            out,
            "process_resident_memory_bytes",
            "Memory in use.",
            bytes,
        );
        if let Some(booted) = booted() {
            let help = "When it started, since 1970.";
            let started = f64::from(booted) + seconds(self.start_ticks);
            one(out, "process_start_time_seconds", help, started);
        }
    }

    fn parse(text: &str) -> Option<Stat> {
        // The second field is a name in parentheses, which may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields are numbered from 1 and the first here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_manual() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15 16 4 18 500 8192 3 22";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                cpu_ticks: 42,
                threads: 4,
                start_ticks: 500,
                virtual_bytes: 8192,
                resident_pages: 3
            }
        );
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(Stat::parse(&own).unwrap().threads >= 1);
    }

    #[test]
    fn time_on_processors_is_a_counter_with_fractions() {
        let per_second = rustix::param::clock_ticks_per_second();
        let stat = Stat {
            cpu_ticks: per_second + per_second / 2,
            threads: 1,
            start_ticks: 0,
            virtual_bytes: 0,
            resident_pages: 0,
        };
        let mut text = String::new();
        stat.write(&mut text);
        let family = "# HELP process_cpu_seconds_total Time on processors, in seconds.\n\
                      # TYPE process_cpu_seconds_total counter\n\
                      process_cpu_seconds_total 1.5\n\n";
        assert!(text.starts_with(family), "{text}");
        assert!(text.contains("# TYPE process_threads gauge\nprocess_threads 1\n"));
    }
}
