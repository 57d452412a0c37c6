//! More clients than there are descriptors.

use std::{os::unix::net::UnixStream, process::Command};

use crate::daemon::{Place, quiet, wait_for};

#[test]
fn want_of_descriptors_passes() {
    let place = Place::new();
    let plain = place.command();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=48").arg(plain.get_program());
    command.args(plain.get_args());
    quiet(&mut command);
    let daemon = place.start_as(command);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(place.version()).unwrap();
    let crowd: Vec<_> = (0..64)
        .map(|_| UnixStream::connect(place.socket()).unwrap())
        .collect();
    daemon.logged("cannot accept a connection");
    std::thread::sleep(std::time::Duration::from_millis(500));
    // However long it lasts, nobody needs to read it ten times a second.
    let complaints = daemon.log().matches("cannot accept").count();
    assert_eq!(complaints, 1, "{}", daemon.log());
    drop(crowd);
    wait_for("an answer", || runtime.block_on(place.version()).ok());
}
