//! The headers that come before an entry and speak of it: PAX records, GNU long names.

use std::io::BufRead;

use super::{Limits, Problem, header::Header, input::Input, pax};

/// What extension headers say of the entry they precede.
#[derive(Default)]
pub(super) struct Extension {
    headers: u32,
    bytes: u64,
    pub(super) records: Option<pax::Records>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extension {
    /// At the end of the archive, or before a global header: these headers lost their entry.
    pub(super) fn expect_none(&self) -> Result<(), Problem> {
        if self.records.is_some() || self.long_path.is_some() || self.long_link.is_some() {
            return Err(Problem::Dangling);
        }
        Ok(())
    }

    /// Reads one extension header. Its size is its own: what PAX says of a size means the entry.
    pub(super) fn read<R: BufRead>(
        &mut self,
        header: &Header<'_>,
        input: &mut Input<R>,
        limits: &Limits,
    ) -> Result<(), Problem> {
        self.headers += 1;
        if self.headers > limits.ext_headers {
            return Err(Problem::Limit {
                what: "extension headers before an entry",
                limit: limits.ext_headers.into(),
            });
        }
        let size = header.size()?;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > limits.ext_bytes {
            return Err(Problem::Limit {
                what: "bytes of extension headers before an entry",
                limit: limits.ext_bytes,
            });
        }
        let body = input.body(size, "extension header")?;
        match header.flag() {
            b'g' => {
                self.expect_none()?;
                pax::check_global(&body)?;
            }
            b'x' if self.records.is_none() => {
                let mut records = pax::Records::default();
                records.add(&body)?;
                self.records = Some(records);
            }
            b'L' if self.long_path.is_none() => {
                self.long_path = Some(long_name(body, "long path")?);
            }
            b'K' if self.long_link.is_none() => {
                self.long_link = Some(long_name(body, "long link target")?);
            }
            // Some readers would merge two PAX headers, others take the second.
            _ => return Err(Problem::Ambiguous("two extension headers of one type")),
        }
        Ok(())
    }

    /// The path that PAX records or a long name give. In a sparse file PAX's ordinary path is a
    /// makeshift for readers that know no better.
    pub(super) fn take_path(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let pax = self.records.as_mut().and_then(|records| {
            let sparse = records.sparse.name.take();
            sparse.or_else(|| records.path.take())
        });
        one_of(pax, self.long_path.take(), "a PAX path and a GNU long name")
    }

    /// The link target that PAX records or a long name give.
    pub(super) fn take_link(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let pax = self
            .records
            .as_mut()
            .and_then(|records| records.link.take());
        one_of(
            pax,
            self.long_link.take(),
            "a PAX linkpath and a GNU long link",
        )
    }
}

fn one_of(
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    both: &'static str,
) -> Result<Option<Vec<u8>>, Problem> {
    match (pax, gnu) {
        (Some(_), Some(_)) => Err(Problem::Ambiguous(both)),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

/// The body of `L` or `K`: up to its NUL, after which nothing may hide.
fn long_name(mut body: Vec<u8>, what: &'static str) -> Result<Vec<u8>, Problem> {
    let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
    if body[end..].iter().any(|b| *b != 0) {
        return Err(Problem::Nul(what));
    }
    if end == 0 {
        return Err(Problem::EmptyPath);
    }
    body.truncate(end);
    Ok(body)
}
