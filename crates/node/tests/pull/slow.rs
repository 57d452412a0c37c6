//! A blob by several connections.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cairn_types::ImageName;

use crate::{common::*, large, noise, pull, push, registry::Registry};

/// A way to a registry that lets each connection have so many bytes a second.
pub(crate) struct Narrow {
    pub(crate) address: SocketAddr,
    /// Bytes that each connection brought.
    pub(crate) brought: Arc<Mutex<Vec<u64>>>,
    /// Requests for parts.
    asked: Arc<AtomicU64>,
}

impl Narrow {
    /// With `parts` false what asks for a part of a blob gets all of it.
    pub(crate) fn to(registry: &Registry, rate: u64, parts: bool) -> Narrow {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let brought = Arc::new(Mutex::new(Vec::new()));
        let (upstream, counts) = (registry.host(), Arc::clone(&brought));
        let asked = Arc::new(AtomicU64::new(0));
        let asking = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&*upstream).expect("registry");
                let number = {
                    let mut counts = counts.lock().expect("counts");
                    counts.push(0);
                    counts.len() - 1
                };
                let (mut from, mut to) = (
                    client.try_clone().expect("socket"),
                    server.try_clone().expect("socket"),
                );
                let asking = Arc::clone(&asking);
                thread::spawn(move || ask(&mut from, &mut to, parts, &asking));
                let counts = Arc::clone(&counts);
                thread::spawn(move || {
                    narrow(server, client, rate, &|bytes| {
                        counts.lock().expect("counts")[number] += bytes;
                    })
                });
            }
        });
        Narrow {
            address,
            brought,
            asked,
        }
    }
}

/// Passes requests on; a range in one of them is misspelt where there are to be no parts.
fn ask(from: &mut TcpStream, to: &mut TcpStream, parts: bool, asked: &AtomicU64) {
    const RANGE: &[u8] = b"\nrange:";
    let mut buffer = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..got];
        let at = bytes
            .windows(RANGE.len())
            .position(|word| word.eq_ignore_ascii_case(RANGE));
        if let Some(at) = at {
            asked.fetch_add(1, Ordering::Relaxed);
            if !parts {
                bytes[at + 1] = b'x';
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
}

fn narrow(mut from: TcpStream, mut to: TcpStream, rate: u64, count: &dyn Fn(u64)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        thread::sleep(Duration::from_micros(got as u64 * 1_000_000 / rate));
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
        count(got as u64);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// One connection that is slow gets company; what comes by several is put together in order.
#[test]
fn a_slow_connection_is_not_left_alone() {
    let registry = Registry::start();
    let layout = large(32);
    push(layout.path(), "large", &registry, "large:1");
    let narrow = Narrow::to(&registry, 8 << 20, true);
    let store = Store::new();
    let name = ImageName::parse(&format!("{}/large:1", narrow.address)).expect("name");
    let pulled = pull(&store, name.clone()).expect("pull");
    let brought = narrow.brought.lock().expect("counts").clone();
    let carried = brought.iter().filter(|bytes| **bytes > 1 << 20).count();
    assert!(carried > 2, "{brought:?}");
    // What the first connection had sent beyond the place where the others began is not counted, since
    // nobody read it.
    let all: u64 = brought.iter().sum();
    assert!(all < pulled.images[0].content_size * 21 / 20, "{brought:?}");
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("file")).expect("file"),
        noise(32 << 20)
    );
    store.unmount(&target);
}

/// Others are asked for parts and send everything: the first connection goes on alone.
#[test]
fn a_registry_without_parts_is_asked_by_one_connection() {
    let registry = Registry::start();
    let layout = large(24);
    push(layout.path(), "large", &registry, "large:1");
    let narrow = Narrow::to(&registry, 8 << 20, false);
    let store = Store::new();
    let name = ImageName::parse(&format!("{}/large:1", narrow.address)).expect("name");
    pull(&store, name.clone()).expect("pull");
    assert!(narrow.asked.load(Ordering::Relaxed) > 0);
    let brought = narrow.brought.lock().expect("counts").clone();
    let carried = brought.iter().filter(|bytes| **bytes > 4 << 20).count();
    assert_eq!(carried, 1, "{brought:?}");
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}
