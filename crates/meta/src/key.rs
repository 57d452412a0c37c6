//! Keys: tuples of names whose encoding sorts as the names do.
//!
//! Each component is its bytes and a NUL. Names cannot hold a NUL, so one key is never the beginning
//! of another by accident, and all keys of a namespace stand together.

use cairn_types::{Digest, ImageName, IngestRef, LeaseId, Namespace, SnapshotKey};

use crate::Error;

/// One name in a key.
pub trait Component: Sized {
    /// As text without NUL.
    fn text(&self) -> std::borrow::Cow<'_, str>;
    /// Back from the text of a key on disk; the error is the reason.
    fn from_text(text: &str) -> Result<Self, String>;
}

macro_rules! named {
    ($($type:ty),*) => {$(
        impl Component for $type {
            fn text(&self) -> std::borrow::Cow<'_, str> {
                self.as_str().into()
            }
            fn from_text(text: &str) -> Result<Self, String> {
                <$type>::parse(text).map_err(|err| err.to_string())
            }
        }
    )*};
}

named!(Namespace, ImageName, SnapshotKey, IngestRef, LeaseId);

impl Component for Digest {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        self.to_string().into()
    }
    fn from_text(text: &str) -> Result<Self, String> {
        Digest::parse(text).map_err(|err| err.to_string())
    }
}

impl Component for String {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        self.as_str().into()
    }
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

fn put(component: &impl Component, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = component.text();
    if text.as_bytes().contains(&0) {
        return Err(Error::Nul(text.escape_default().to_string()));
    }
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(())
}

fn take<C: Component>(rest: &mut &[u8]) -> Result<C, String> {
    let end = rest
        .iter()
        .position(|&b| b == 0)
        .ok_or("a component has no end")?;
    let text = std::str::from_utf8(&rest[..end]).map_err(|err| err.to_string())?;
    *rest = &rest[end + 1..];
    C::from_text(text)
}

/// The beginning of a key.
pub trait Prefix {
    /// Appends the encoded components.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// A whole key.
pub trait Key: Prefix + Sized {
    /// Reads the components back; the error is the reason.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

fn whole<T>(value: T, rest: &[u8]) -> Result<T, String> {
    if rest.is_empty() {
        Ok(value)
    } else {
        Err("the key is longer than its table's".to_owned())
    }
}

impl Prefix for () {
    fn encode(&self, _out: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }
}

impl<A: Component> Prefix for A {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        put(self, out)
    }
}

impl<A: Component> Key for A {
    fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let a = take(&mut bytes)?;
        whole(a, bytes)
    }
}

impl<A: Component, B: Component> Prefix for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        put(&self.0, out)?;
        put(&self.1, out)
    }
}

impl<A: Component, B: Component> Key for (A, B) {
    fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let pair = (take(&mut bytes)?, take(&mut bytes)?);
        whole(pair, bytes)
    }
}

impl<A: Component, B: Component, C: Component> Prefix for (A, B, C) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        put(&self.0, out)?;
        put(&self.1, out)?;
        put(&self.2, out)
    }
}

impl<A: Component, B: Component, C: Component> Key for (A, B, C) {
    fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let triple = (take(&mut bytes)?, take(&mut bytes)?, take(&mut bytes)?);
        whole(triple, bytes)
    }
}

impl<A: Component, B: Component, C: Component, D: Component> Prefix for (A, B, C, D) {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        put(&self.0, out)?;
        put(&self.1, out)?;
        put(&self.2, out)?;
        put(&self.3, out)
    }
}

impl<A: Component, B: Component, C: Component, D: Component> Key for (A, B, C, D) {
    fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let four = (
            take(&mut bytes)?,
            take(&mut bytes)?,
            take(&mut bytes)?,
            take(&mut bytes)?,
        );
        whole(four, bytes)
    }
}
