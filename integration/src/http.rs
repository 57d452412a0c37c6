//! HTTP/1.1 as far as registries speak it (RFC 9112), byte by byte, so that a test can say and see what
//! goes over a connection.
//!
//! A thread for each connection: there are few, and a test that waits is easier to read than one that
//! polls.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The first line of a message, and its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Without its end.
    pub first: String,
    /// As they came.
    pub fields: Vec<(String, String)>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Head {
    /// A head without fields.
    pub fn new(first: impl Into<String>) -> Head {
        Head {
            first: first.into(),
            fields: Vec::new(),
        }
    }

    /// Reads one; `None` where the connection ends before it.
    ///
    /// # Errors
    /// Those of the connection, and `InvalidData` for what is no head.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let Some(first) = line(from)? else {
            return Ok(None);
        };
        let mut head = Head::new(first);
        loop {
            let field = line(from)?.ok_or(ErrorKind::UnexpectedEof)?;
            if field.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = field.split_once(':').ok_or(ErrorKind::InvalidData)?;
            let field = (name.to_owned(), value.trim().to_owned());
            head.fields.push(field);
        }
    }

    /// The first field of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Makes a field the only one of its name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.fields.push((name.to_owned(), value.into()));
    }

    /// Takes all fields of a name out.
    pub fn remove(&mut self, name: &str) {
        self.fields
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Writes it with the empty line at its end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        to.write_all(text.as_bytes())
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        let status = self.first.split(' ').nth(1);
        status.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Method and target of a request.
    pub fn request(&self) -> (&str, &str) {
        let mut words = self.first.split(' ');
        (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        )
    }

    /// How the body of a request ends, which has none unless it says so (RFC 9112, 6.3).
    pub fn request_framing(&self) -> Framing {
        match self.framing() {
            Framing::Close => Framing::Length(0),
            framing => framing,
        }
    }

    /// How the body of an answer to `method` ends.
    pub fn answer_framing(&self, method: &str) -> Framing {
        match self.status() {
            204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => self.framing(),
        }
    }

    fn framing(&self) -> Framing {
        let encoding = self.get("transfer-encoding");
        if encoding.is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.get("content-length").map(str::parse) {
            Some(Ok(length)) => Framing::Length(length),
            _ => Framing::Close,
        }
    }
}

/// A line without its end; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData)?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Passes a body on as it is framed, piece by piece.
///
/// # Errors
/// Those of both sides; `UnexpectedEof` where it ends too early.
pub fn pass(
    from: &mut impl BufRead,
    framing: Framing,
    to: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match framing {
        Framing::Length(length) => exactly(from, length, to),
        Framing::Close => exactly(from, u64::MAX, to).or_else(|err| match err.kind() {
            ErrorKind::UnexpectedEof => Ok(()),
            _ => Err(err),
        }),
        Framing::Chunked => loop {
            let size = line(from)?.ok_or(ErrorKind::UnexpectedEof)?;
            to(format!("{size}\r\n").as_bytes())?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| ErrorKind::InvalidData)?;
            exactly(from, length, to)?;
            // What follows the last chunk may be fields (RFC 9112, 7.1.2).
            loop {
                let end = line(from)?.ok_or(ErrorKind::UnexpectedEof)?;
                to(format!("{end}\r\n").as_bytes())?;
                if length > 0 || end.is_empty() {
                    break;
                }
            }
            if length == 0 {
                return Ok(());
            }
        },
    }
}

fn exactly(
    from: &mut impl BufRead,
    mut left: u64,
    to: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while left > 0 {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        to(&bytes[..take])?;
        from.consume(take);
        left -= take as u64;
    }
    Ok(())
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// The decoded pairs of its query.
    pub query: Vec<(String, String)>,
    /// Its first line and fields.
    pub head: Head,
    /// Whole, without what framed it.
    pub body: Vec<u8>,
}

impl Request {
    /// The decoded pairs of a form.
    pub fn form(&self) -> Vec<(String, String)> {
        pairs(&self.body)
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its first line and fields.
    pub head: Head,
    /// Whole.
    pub body: Vec<u8>,
}

impl Answer {
    /// Of a status, without a body.
    pub fn status(status: u16) -> Answer {
        Answer {
            head: Head::new(format!("HTTP/1.1 {status} so")),
            body: Vec::new(),
        }
    }

    /// With one field more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.head.fields.push((name.to_owned(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Answer {
        self.body = bytes.into();
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Writes it; without the body where `method` has none.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write(&self, method: &str, to: &mut impl Write) -> io::Result<()> {
        let mut head = self.head.clone();
        if head.get("content-length").is_none() {
            head.set("Content-Length", self.body.len().to_string());
        }
        head.write(to)?;
        match method {
            "HEAD" => Ok(()),
            _ => to.write_all(&self.body),
        }
    }
}

/// Makes one request on a connection of its own; the whole answer.
pub fn ask(to: SocketAddr, method: &str, target: &str, more: &Head, body: &[u8]) -> Answer {
    let mut head = Head::new(format!("{method} {target} HTTP/1.1"));
    head.fields.clone_from(&more.fields);
    head.set("Host", to.to_string());
    head.set("Connection", "close");
    head.set("Content-Length", body.len().to_string());
    let mut stream = TcpStream::connect(to).expect("connect");
    head.write(&mut stream).expect("ask");
    stream.write_all(body).expect("ask");
    let mut from = BufReader::new(stream);
    let head = Head::read(&mut from).expect("answer").expect("an answer");
    let mut body = Vec::new();
    match head.answer_framing(method) {
        // What a test asks for itself is small and has a length.
        Framing::Chunked => panic!("{method} {target}: chunks"),
        framing => pass(&mut from, framing, &mut |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })
        .expect("body"),
    }
    Answer { head, body }
}

/// Listens on a free port of the loopback address, a thread for each connection, until it is dropped.
/// Connections that are open then end with their clients.
pub struct Listener {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Listener {
    /// Hands every connection over.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Listener {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let over = Arc::new(AtomicBool::new(false));
        let (serve, ended) = (Arc::new(serve), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), serve) = (stream, Arc::clone(&serve)) else {
                    continue;
                };
                // Small answers are not to wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                thread::spawn(move || serve(stream));
            }
        });
        Listener { address, over }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// A server that answers by a function, and remembers what it was asked.
pub struct Server {
    listener: Listener,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts it.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let listener = Listener::start(move |stream| {
            // A client that leaves in the middle is its own business.
            let _ = serve(&stream, &log, &answer);
            let _ = stream.shutdown(Shutdown::Both);
        });
        Server { listener, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// A path below it, by the address.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Everything that it was asked, in order.
    pub fn asked(&self) -> Vec<Request> {
        let asked = self.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request) -> Answer + ?Sized),
) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    let mut to = stream;
    while let Some(head) = Head::read(&mut from)? {
        let request = whole(head, &mut from)?;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(request.clone());
        drop(log);
        answer(&request).write(&request.method, &mut to)?;
    }
    Ok(())
}

fn whole(head: Head, from: &mut impl BufRead) -> io::Result<Request> {
    let (method, target) = head.request();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (method, path, query) = (method.to_owned(), path.to_owned(), pairs(query.as_bytes()));
    let mut body = Vec::new();
    match head.request_framing() {
        Framing::Length(length) => from.take(length).read_to_end(&mut body).map(|_| ())?,
        _ => return Err(ErrorKind::Unsupported.into()),
    }
    Ok(Request {
        method,
        path,
        query,
        head,
        body,
    })
}

/// A server of files by their paths, with ranges, that everybody may have: what layers with `urls` are
/// fetched from, and what a registry sends its clients to.
pub fn files(files: Vec<(String, Vec<u8>)>) -> Server {
    Server::start(move |request| {
        let mut known = files.iter();
        let Some((_, bytes)) = known.find(|(path, _)| *path == request.path) else {
            return Answer::status(404);
        };
        let Some((from, to)) = request.head.get("range").and_then(range) else {
            return Answer::status(200).body(bytes.clone());
        };
        if from >= bytes.len() {
            return Answer::status(416).with("Content-Range", format!("bytes */{}", bytes.len()));
        }
        let end = to.map_or(bytes.len(), |to| bytes.len().min(to + 1));
        let range = format!("bytes {from}-{}/{}", end - 1, bytes.len());
        let part = &bytes[from..end];
        Answer::status(206).with("Content-Range", range).body(part)
    })
}

/// First and last byte of `bytes=A-B`; of anything else nothing is known.
fn range(text: &str) -> Option<(usize, Option<usize>)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    match to {
        "" => Some((from.parse().ok()?, None)),
        to => Some((from.parse().ok()?, Some(to.parse().ok()?))),
    }
}

/// Fields alone, for [`ask`].
pub fn fields(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::default();
    for (name, value) in fields {
        head.set(name, *value);
    }
    head
}
