//! One connection of a client's, request by request.

use std::{
    io::{self, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{Fault, Seen, Shared, What, lock};
use crate::http::{Answer, Framing, Head, pass};

const BUFFER_BYTES: usize = 64 << 10;

/// How long uploads wait for others that do not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the client's connection can go on.
#[derive(PartialEq, Eq)]
enum Next {
    More,
    End,
}

impl Shared {
    /// Until the client leaves, or is made to.
    pub(super) fn exchange(&self, client: &TcpStream) -> io::Result<()> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, client);
        while let Some(head) = Head::read(&mut from)? {
            let (seen, fault) = self.begin(&head);
            if self.one(head, &seen, fault, &mut from, client)? == Next::End {
                // What was sent arrives; closing at once could take it back.
                client.shutdown(Shutdown::Write)?;
                return io::copy(&mut from, &mut io::sink()).map(|_| ());
            }
        }
        Ok(())
    }

    /// Notes a request, and asks the script about it.
    fn begin(&self, head: &Head) -> (Seen, Option<Fault>) {
        let mut log = lock(&self.log);
        let fetch = log.iter().filter(|seen| seen.is_fetch()).count();
        let mut seen = Seen::of(head, log.len(), fetch);
        seen.fault = (lock(&self.script))(&seen);
        log.push(seen.clone());
        let fault = seen.fault.clone();
        (seen, fault)
    }

    fn note(&self, seen: &Seen, change: impl FnOnce(&mut Seen)) {
        // A log that was forgotten meanwhile has other requests, or none.
        let mut log = lock(&self.log);
        let same = log.get_mut(seen.number);
        if let Some(same) = same.filter(|same| same.head == seen.head) {
            change(same);
        }
    }

    fn one(
        &self,
        mut head: Head,
        seen: &Seen,
        fault: Option<Fault>,
        from: &mut BufReader<&TcpStream>,
        mut client: &TcpStream,
    ) -> io::Result<Next> {
        if head.get("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            head.remove("expect");
        }
        match &fault {
            Some(Fault::Hang) => return Ok(Next::End),
            Some(Fault::TooLarge) => {
                let answer = Answer::status(413).with("Connection", "close");
                self.note(seen, |seen| seen.status = 413);
                answer.write(&seen.method, &mut client)?;
                return Ok(Next::End);
            }
            Some(Fault::Status(status, fields)) => {
                let mut answer = Answer::status(*status);
                answer.head.fields.clone_from(fields);
                return self.instead(seen, &answer, &head, from, client);
            }
            Some(Fault::Redirect(to)) => {
                let answer = Answer::status(307).with("Location", format!("{to}{}", seen.path));
                return self.instead(seen, &answer, &head, from, client);
            }
            Some(Fault::WithoutRange) => head.remove("range"),
            _ => {}
        }
        head.set("Connection", "close");
        let framing = head.request_framing();
        if framing == Framing::Length(0) {
            let mut upstream = TcpStream::connect(self.upstream)?;
            head.write(&mut upstream)?;
            return self.down(seen, fault, upstream, client);
        }
        // A fault of a request with a body is one of that body.
        let mut held = Vec::new();
        let holds = self.whole.load(Ordering::SeqCst);
        if holds && self.up(seen, framing, fault.clone(), from, &mut held)? == Next::End {
            return Ok(Next::End);
        }
        let mut upstream = TcpStream::connect(self.upstream)?;
        head.write(&mut upstream)?;
        if holds {
            upstream.write_all(&held)?;
        } else if self.up(seen, framing, fault, from, &mut upstream)? == Next::End {
            return Ok(Next::End);
        }
        self.down(seen, None, upstream, client)
    }

    /// Waits until as many uploads are there as were asked for.
    fn gather(&self) {
        let began = Instant::now();
        let together = self.together.load(Ordering::SeqCst);
        while self.uploads.peak() < together && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Answers for the registry.
    fn instead(
        &self,
        seen: &Seen,
        answer: &Answer,
        head: &Head,
        from: &mut BufReader<&TcpStream>,
        mut client: &TcpStream,
    ) -> io::Result<Next> {
        pass(from, head.request_framing(), &mut |_| Ok(()))?;
        self.note(seen, |seen| seen.status = answer.head.status());
        answer.write(&seen.method, &mut client)?;
        Ok(Next::More)
    }

    /// Passes the request's body on.
    fn up(
        &self,
        seen: &Seen,
        framing: Framing,
        fault: Option<Fault>,
        from: &mut BufReader<&TcpStream>,
        upstream: &mut impl Write,
    ) -> io::Result<Next> {
        let _here = (seen.what == What::Upload).then(|| self.uploads.enter());
        self.gather();
        let mut breaker = Breaker::new(fault.as_ref(), framing);
        let passed = pass(from, framing, &mut |bytes| {
            let (bytes, end) = breaker.take(bytes);
            upstream.write_all(&bytes)?;
            self.note(seen, |seen| seen.received += bytes.len() as u64);
            end
        });
        match passed {
            Ok(()) => Ok(Next::More),
            Err(err) if err.kind() == ErrorKind::Other => Ok(Next::End),
            Err(err) => Err(err),
        }
    }

    /// Passes the answer on.
    fn down(
        &self,
        seen: &Seen,
        fault: Option<Fault>,
        upstream: TcpStream,
        mut client: &TcpStream,
    ) -> io::Result<Next> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, upstream);
        let mut head = Head::read(&mut from)?.ok_or(ErrorKind::UnexpectedEof)?;
        while head.status() == 100 {
            head = Head::read(&mut from)?.ok_or(ErrorKind::UnexpectedEof)?;
        }
        let framing = head.answer_framing(&seen.method);
        self.note(seen, |seen| seen.status = head.status());
        head.remove("connection");
        if framing == Framing::Close {
            head.set("Connection", "close");
        }
        let mut breaker = Breaker::new(fault.as_ref(), framing);
        breaker.announce(&mut head);
        head.write(&mut client)?;
        let rate = match &fault {
            Some(Fault::Trickle(rate)) => *rate,
            _ => self.rate.load(Ordering::SeqCst),
        };
        let mut pace = Pace::new(rate);
        // Left before the last bytes go: whoever has them may ask for more at once.
        let mut fetching = seen.is_fetch().then(|| self.blobs.enter());
        let passed = pass(&mut from, framing, &mut |bytes| {
            let (bytes, end) = breaker.take(bytes);
            let pieces = bytes.chunks(pace.piece());
            let last = pieces.len();
            for (number, piece) in (1..).zip(pieces) {
                if number == last && (breaker.is_whole() || end.is_err()) {
                    fetching.take();
                }
                client.write_all(piece)?;
                self.note(seen, |seen| seen.sent += piece.len() as u64);
                pace.wait(piece.len());
            }
            end
        });
        match passed {
            Ok(()) => Ok(match breaker.ends || framing == Framing::Close {
                true => Next::End,
                false => Next::More,
            }),
            Err(err) if err.kind() == ErrorKind::Other => {
                if matches!(fault, Some(Fault::Stall(_))) {
                    silence(client);
                }
                Ok(Next::End)
            }
            Err(err) => Err(err),
        }
    }
}

/// Until the client leaves.
fn silence(mut client: &TcpStream) {
    let _ = client.read(&mut [0]);
}

/// Breaks a body on its way.
struct Breaker<'f> {
    fault: Option<&'f Fault>,
    /// Of the body, as far as it is known.
    length: u64,
    passed: u64,
    /// The connection ends after the body.
    ends: bool,
}

impl Breaker<'_> {
    fn new(fault: Option<&Fault>, framing: Framing) -> Breaker<'_> {
        let length = match framing {
            Framing::Length(length) => length,
            _ => u64::MAX,
        };
        // Nothing can be done to a body that is empty, nor to a length that is not said.
        let fault = fault.filter(|fault| match fault {
            Fault::Longer(_) | Fault::Shorter(_) => length > 0 && length < u64::MAX,
            _ => length > 0,
        });
        Breaker {
            fault,
            length,
            passed: 0,
            ends: false,
        }
    }

    /// Changes what the answer says of its length.
    fn announce(&mut self, head: &mut Head) {
        let said = match self.fault {
            Some(Fault::Longer(more)) => self.length + more,
            Some(Fault::Shorter(less)) => self.shorter(*less),
            _ => return,
        };
        head.set("Content-Length", said.to_string());
        self.ends = true;
    }

    fn shorter(&self, less: u64) -> u64 {
        self.length - (less % self.length).max(1)
    }

    /// Nothing more is to be passed.
    fn is_whole(&self) -> bool {
        self.passed >= self.length
    }

    /// The part of these bytes that goes on, and `Other` when nothing is to follow.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = bytes.to_vec();
        let (start, end) = (self.passed, self.passed + bytes.len() as u64);
        let last = match self.fault {
            Some(Fault::Cut(at) | Fault::Stall(at)) => at % self.length,
            Some(Fault::Shorter(less)) => self.shorter(*less),
            Some(Fault::Flip(at)) => {
                let at = at % self.length;
                if (start..end).contains(&at) {
                    let at = usize::try_from(at - start).expect("in memory");
                    bytes[at] ^= 0x20;
                }
                u64::MAX
            }
            _ => u64::MAX,
        };
        self.passed = end;
        if end <= last {
            return (bytes, Ok(()));
        }
        let keep = last.saturating_sub(start);
        bytes.truncate(usize::try_from(keep).expect("in memory"));
        (bytes, Err(ErrorKind::Other.into()))
    }
}

/// Keeps to a rate.
struct Pace {
    rate: u64,
    began: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace {
            rate,
            began: Instant::now(),
            sent: 0,
        }
    }

    /// Bytes to send without a wait: what comes in some ten milliseconds.
    fn piece(&self) -> usize {
        match self.rate {
            0 => BUFFER_BYTES,
            rate => usize::try_from(rate / 100).map_or(BUFFER_BYTES, |n| n.clamp(1, BUFFER_BYTES)),
        }
    }

    fn wait(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.rate == 0 {
            return;
        }
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}
