//! Bytes to a client that is known to have them in the end.
//!
//! `ctr` ends with the answer of its call, whether it has written by then what came on a stream before or
//! not: of 2.1.9 one export in some tens was short and a success. So the answer waits for a sign that all
//! was taken. A client gives one by granting more, which it does when it has taken a message and has less
//! than a window left. With a window's worth of bytes kept for the last message, and sent when a whole window is
//! open, that is sure to be so after this one and not before.

use std::{io, time::Duration};

use super::{
    Gone,
    bytes::{DATA_MAX, Sent},
};

/// What a client grants at a time, whenever it has less (containerd `core/transfer/streaming/stream.go`).
pub(super) const GRANT: usize = 64 << 10;

/// How long a whole window is waited for. Clients that grant in another manner never have one.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one that had it may take to write the last bytes: what it writes to may be slow.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// A writer that keeps the last of what it is given.
pub struct Whole {
    sent: Sent,
    kept: Vec<u8>,
}

impl Whole {
    /// To this stream.
    pub fn new(sent: Sent) -> Whole {
        Whole {
            sent,
            kept: Vec::with_capacity(GRANT + DATA_MAX),
        }
    }

    /// Sends what is kept, and waits a while for the client to take it. Then the stream is closed.
    ///
    /// # Errors
    /// When the client grants no more, is gone, or has given up the call.
    pub fn end(mut self) -> io::Result<()> {
        self.pass(self.kept.len().saturating_sub(GRANT))?;
        let runtime = self.sent.runtime();
        let patience = (PATIENCE, LAST_PATIENCE);
        let ended = runtime.block_on(last(&mut self.sent, &self.kept, patience));
        ended.map_err(|Gone| gone())
    }

    /// Sends so many of the bytes that are kept.
    fn pass(&mut self, length: usize) -> io::Result<()> {
        io::Write::write_all(&mut self.sent, &self.kept[..length])?;
        self.kept.drain(..length);
        Ok(())
    }
}

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        let more = self.kept.len().saturating_sub(GRANT);
        self.pass(more - more % DATA_MAX)?;
        Ok(bytes.len())
    }

    /// What is kept is sent at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client wants no more")
}

/// Sends the last bytes, of which there are no more than a client grants at a time. So long is waited for a
/// window before them, and for the sign after them.
async fn last(
    sent: &mut Sent,
    mut bytes: &[u8],
    (before, after): (Duration, Duration),
) -> Result<(), Gone> {
    if bytes.is_empty() {
        return Ok(());
    }
    // Nothing that it granted is on its way then.
    let open = sent.opens(GRANT, before).await?;
    while !bytes.is_empty() {
        let most = if open { GRANT } else { DATA_MAX };
        let length = sent.send_up_to(bytes, most).await?;
        bytes = &bytes[length..];
    }
    if open {
        sent.opens(GRANT, after).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use cairn_proto::containerd::types::transfer::Data;

    use super::*;
    use crate::streams::{bytes::tests::Loose, unpack};

    /// Whether it is over, when it has gone as far as it goes.
    async fn is_over(doing: &mut (impl Future<Output = Result<(), Gone>> + Unpin)) -> bool {
        let polled = std::future::poll_fn(|context| {
            let mut doing = std::pin::Pin::new(&mut *doing);
            Poll::Ready(doing.as_mut().poll(context).is_ready())
        });
        polled.await
    }

    #[tokio::test]
    async fn the_end_waits_for_the_client_to_take_the_last_bytes() {
        // As much as a client may have open when it grants no more.
        for left in [GRANT, GRANT + DATA_MAX, 2 * GRANT - 1] {
            let mut loose = Loose::new();
            loose.window.grant(left as u64);
            let bytes = vec![7; GRANT];
            let mut ending = pin!(last(
                &mut loose.sent,
                &bytes,
                (Duration::MAX, Duration::MAX)
            ));
            assert!(!is_over(&mut ending).await, "{left}");
            let any = loose.receiver.recv().await.expect("bytes").expect("bytes");
            let Data { data } = unpack(&any).expect("bytes").expect("bytes");
            assert_eq!(data, bytes, "in one message");
            assert!(!is_over(&mut ending).await, "{left}");
            loose.window.grant(GRANT as u64);
            ending.await.expect("taken");
        }
    }

    #[tokio::test]
    async fn other_windows_are_no_obstacle() {
        // Smaller ones, one that is opened when it is shut, and one for everything.
        for (first, then, before) in [
            (16, 16, 1),
            (GRANT - 1, GRANT, 0),
            (GRANT, GRANT, 1),
            (1 << 30, 1, 1),
        ] {
            let Loose {
                mut sent,
                mut receiver,
                window,
                call: _call,
            } = Loose::new();
            window.grant(first as u64);
            let taking = tokio::spawn(async move {
                let mut taken = 0;
                while let Some(Ok(any)) = receiver.recv().await {
                    let Data { data } = unpack(&any).expect("bytes").expect("bytes");
                    taken += data.len();
                    if taken >= first {
                        window.grant(then as u64);
                    }
                }
                taken
            });
            let bytes = vec![7; GRANT];
            if before > 0 {
                sent.send(&bytes[..before]).await.expect("sent");
            }
            let patience = Duration::from_millis(1);
            last(&mut sent, &bytes, (patience, patience))
                .await
                .expect("sent");
            drop(sent);
            let taken = taking.await.expect("no panic");
            assert_eq!(taken, before + GRANT, "{first}");
        }
    }
}
