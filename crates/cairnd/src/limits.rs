//! How much clients may ask for, and what the process itself may have.

use std::time::Duration;

use tracing::warn;

use crate::config::{Grpc, Layers};

/// Of a socket and its connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of a message from a client.
    pub receive_bytes: usize,
    /// Most bytes of a message to a client.
    pub send_bytes: usize,
    /// Most connections at once.
    pub connections: usize,
    /// Most connections of one process.
    pub connections_per_process: usize,
    /// Most calls at once on one connection.
    pub streams: u32,
    /// Most calls of one process that are worked on at once.
    pub working: usize,
    /// How long a client may take to say the first words of HTTP/2.
    pub handshake: Duration,
    /// After so long without a word a client is asked whether it is there; never when it is zero.
    pub keepalive: Duration,
    /// How long it has to answer.
    pub keepalive_timeout: Duration,
}

impl Limits {
    /// Those of a configuration.
    pub fn of(grpc: &Grpc) -> Limits {
        Limits {
            receive_bytes: grpc.max_recv_message_size,
            send_bytes: grpc.max_send_message_size,
            connections: grpc.max_connections,
            connections_per_process: grpc.max_connections_per_process,
            streams: grpc.max_concurrent_streams,
            working: grpc.max_working_calls,
            handshake: grpc.handshake_timeout,
            keepalive: grpc.keepalive_interval,
            keepalive_timeout: grpc.keepalive_timeout,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let config = Layers::default().config();
        Limits::of(&config.expect("the built-in defaults are well-formed").grpc)
    }
}

/// Lets this process have as many descriptors as it may: every connection, upload and layer takes one,
/// and what a shell or an old service manager sets as the soft limit is made for `select`.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(err) = setrlimit(Resource::Nofile, raised) {
        warn!("cannot have more than {current:?} descriptors: {err}");
    }
}
