//! Uploads that a process leaves in the middle, and another one finds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cairn_registry::{ByteStream, Cause, Client, Options, Pushed, Sessions, Source, UploadState};
use cairn_types::{Descriptor, Digest, media};
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;

use crate::common::{
    FakeClock, client_with, noise, options, origin,
    server::{Reply, Request, Server},
};

const LEN: usize = 1000;

/// By place and digest.
#[derive(Default)]
struct Notebook(Mutex<HashMap<(String, Digest), String>>);

impl Notebook {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("notes").values().cloned().collect()
    }
}

impl Sessions for Notebook {
    fn kept(&self, place: &str, blob: &Descriptor) -> Option<UploadState> {
        let notes = self.0.lock().expect("notes");
        let location = notes.get(&(place.to_owned(), blob.digest.clone()))?;
        Some(UploadState {
            location: location.clone(),
        })
    }

    fn keep(&self, place: &str, blob: &Descriptor, state: &UploadState) {
        let key = (place.to_owned(), blob.digest.clone());
        let mut notes = self.0.lock().expect("notes");
        notes.insert(key, state.location.clone());
    }

    fn forget(&self, place: &str, blob: &Descriptor) {
        let key = (place.to_owned(), blob.digest.clone());
        self.0.lock().expect("notes").remove(&key);
    }
}

fn blob() -> (Descriptor, Bytes) {
    let bytes = noise(LEN);
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(&bytes), LEN as u64);
    (descriptor, bytes.into())
}

/// Gives so many bytes, and then nothing any more.
struct Halting(Bytes, usize, Arc<Notify>);

impl Source for Halting {
    fn read(&self, offset: u64) -> ByteStream {
        assert_eq!(offset, 0);
        let first = self.0.slice(..self.1);
        let halted = Arc::clone(&self.2);
        let rest = stream::once(async move {
            halted.notify_one();
            std::future::pending().await
        });
        Box::pin(stream::iter([Ok(first)]).chain(rest))
    }
}

fn client(server: &Server, notes: &Arc<Notebook>, chunk: Option<u64>) -> Client {
    let options = Options {
        upload_chunk: chunk,
        sessions: Arc::clone(notes) as Arc<dyn Sessions>,
        ..options(&FakeClock::new())
    };
    client_with(&[origin(&server.host())], options)
}

/// Ends in the middle, as a process that is killed does.
async fn killed(server: &Server, notes: &Arc<Notebook>, chunk: Option<u64>, at: usize) {
    let halted = Arc::new(Notify::new());
    let (descriptor, bytes) = blob();
    let source: Arc<dyn Source> = match chunk {
        None => Arc::new(Halting(bytes, at, Arc::clone(&halted))),
        Some(_) => Arc::new(Chunks(bytes, at, Arc::clone(&halted))),
    };
    let client = client(server, notes, chunk);
    tokio::select! {
        pushed = client.push(&descriptor, &source, &[]) => panic!("{pushed:?}"),
        () = halted.notified() => {}
    }
}

/// As [`Halting`], in chunks of which none is begun after so many bytes.
struct Chunks(Bytes, usize, Arc<Notify>);

impl Source for Chunks {
    fn read(&self, offset: u64) -> ByteStream {
        if offset >= self.1 as u64 {
            let halted = Arc::clone(&self.2);
            return Box::pin(stream::once(async move {
                halted.notify_one();
                std::future::pending().await
            }));
        }
        self.0.read(offset)
    }
}

async fn push(server: &Server, notes: &Arc<Notebook>) -> Result<Pushed, cairn_registry::Error> {
    let (descriptor, bytes) = blob();
    let source: Arc<dyn Source> = Arc::new(bytes);
    let from = ["base/debian".to_owned()];
    client(server, notes, None)
        .push(&descriptor, &source, &from)
        .await
}

fn session(state: &str) -> Reply {
    let session = format!("/v2/shop/web/blobs/uploads/1?_state={state}");
    Reply::status(202).with("location", session)
}

fn has(bytes: usize) -> Reply {
    session(&bytes.to_string()).with("range", format!("0-{}", bytes - 1))
}

/// Method, state, and bytes where there are any.
fn trace(server: &Server, from: usize) -> Vec<String> {
    let shown = |asked: &Request| {
        let query = asked.query();
        let state = query.iter().find(|(name, _)| name == "_state");
        let state = state.map_or("", |(_, state)| state);
        match asked.body.len() {
            0 => format!("{} {state}", asked.method).trim().to_owned(),
            bytes => format!("{} {state} {bytes}", asked.method),
        }
    };
    server.asked()[from..].iter().map(shown).collect()
}

#[tokio::test]
async fn another_process_goes_on() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => session("new"),
        "GET" => has(400),
        _ => Reply::status(201),
    })
    .await;
    let notes = Arc::<Notebook>::default();
    killed(&server, &notes, None, 400).await;
    assert_eq!(
        notes.all(),
        [server.url("/v2/shop/web/blobs/uploads/1?_state=new")]
    );
    let before = server.asked().len();
    assert_eq!(push(&server, &notes).await.expect("pushed"), Pushed::Sent);
    // It is not asked for at a neighbour any more.
    assert_eq!(trace(&server, before), ["HEAD", "GET new", "PUT 400 600"]);
    let last = server.asked().pop().expect("asked");
    assert_eq!(last.header("content-range"), Some("400-999"));
    assert_eq!(last.body, noise(LEN)[400..]);
    assert_eq!(notes.all(), [""; 0], "what is done is forgotten");
}

#[tokio::test]
async fn the_state_after_the_last_chunk_is_what_counts() {
    let server = Server::start(|request: &Request, number| {
        match request.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => session("new"),
            "PATCH" => has(300 * (number - 1)),
            // Any other it does not take.
            "GET" if request.target.ends_with("_state=600") => has(600),
            "GET" => Reply::status(404),
            _ => Reply::status(201),
        }
    })
    .await;
    let notes = Arc::<Notebook>::default();
    killed(&server, &notes, Some(300), 600).await;
    let before = server.asked().len();
    assert_eq!(push(&server, &notes).await.expect("pushed"), Pushed::Sent);
    assert_eq!(trace(&server, before), ["HEAD", "GET 600", "PUT 600 400"]);
}

#[tokio::test]
async fn what_the_registry_has_forgotten_begins_again() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "HEAD" | "GET" => Reply::status(404),
        "POST" => session("new"),
        _ => Reply::status(201),
    })
    .await;
    let notes = Arc::<Notebook>::default();
    killed(&server, &notes, None, 400).await;
    let before = server.asked().len();
    assert_eq!(push(&server, &notes).await.expect("pushed"), Pushed::Sent);
    assert_eq!(
        trace(&server, before),
        ["HEAD", "GET new", "POST", "PUT new 1000"]
    );
}

/// What it said that it has may be something else.
#[tokio::test]
async fn what_comes_to_nothing_begins_again() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => session("new"),
        "GET" => has(400),
        _ if request.body.len() == LEN => Reply::status(201),
        _ => Reply::status(422),
    })
    .await;
    let notes = Arc::<Notebook>::default();
    killed(&server, &notes, None, 400).await;
    let before = server.asked().len();
    assert_eq!(push(&server, &notes).await.expect("pushed"), Pushed::Sent);
    assert_eq!(
        trace(&server, before),
        ["HEAD", "GET new", "PUT 400 600", "POST", "PUT new 1000"]
    );
    assert_eq!(notes.all(), [""; 0]);
}

/// It may be there again tomorrow, and what it has may be, too.
#[tokio::test]
async fn who_is_out_of_order_is_not_forgotten() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => session("new"),
        "GET" => has(400),
        _ => Reply::status(503),
    })
    .await;
    let notes = Arc::<Notebook>::default();
    let err = push(&server, &notes).await.expect_err("never");
    let cause = &err.last().expect("asked").cause;
    assert!(matches!(cause, Cause::Status { status: 503, .. }), "{err}");
    assert_eq!(
        notes.all(),
        [server.url("/v2/shop/web/blobs/uploads/1?_state=400")]
    );
}
