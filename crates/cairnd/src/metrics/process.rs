//! The figures that every client library of Prometheus has of its process, from `/proc/self`.

use std::fs;

use metrics::{describe_gauge, gauge};

use super::set as set_count;

pub(super) fn describe() {
    describe_gauge!(
        "process_cpu_seconds_total",
        "Time on processors, in seconds."
    );
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_max_fds", "Most file descriptors that may be open.");
    describe_gauge!("process_virtual_memory_bytes", "Address space.");
    describe_gauge!("process_resident_memory_bytes", "Memory in use.");
    describe_gauge!("process_threads", "Threads.");
    describe_gauge!("process_start_time_seconds", "When it started, since 1970.");
}

/// Reads them anew. What cannot be read keeps its value.
pub(super) fn set() {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the reading itself.
        let open = entries.count().saturating_sub(1);
        set_count(&gauge!("process_open_fds"), open as u64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        set_count(&gauge!("process_max_fds"), limit);
    }
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else {
        return;
    };
    let Some(stat) = Stat::parse(&stat) else {
        return;
    };
    let ticks = |ticks: u64| {
        #[allow(clippy::cast_precision_loss, reason = "figures are floats")]
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        seconds
    };
    gauge!("process_cpu_seconds_total").set(ticks(stat.cpu_ticks));
    set_count(&gauge!("process_threads"), stat.threads);
    set_count(&gauge!("process_virtual_memory_bytes"), stat.virtual_bytes);
    let resident = stat.resident_pages * rustix::param::page_size() as u64;
    set_count(&gauge!("process_resident_memory_bytes"), resident);
    let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("btime "));
        line?.parse::<u32>().ok()
    });
    if let Some(booted) = booted {
        gauge!("process_start_time_seconds").set(f64::from(booted) + ticks(stat.start_ticks));
    }
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
}
