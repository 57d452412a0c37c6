//! Digests, and the two kinds of names made of them: diff IDs and chain IDs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::{Classified, ErrorKind};

/// The hash algorithms of the image-spec that are registered and strong (`descriptor.md`, "Registered
/// algorithms"), and sha384, which containerd accepts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// The canonical one.
    Sha256,
    /// Accepted by containerd beside the registered two.
    Sha384,
    /// For those who want longer names.
    Sha512,
}

impl Algorithm {
    /// The word before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Hex characters after the colon.
    pub fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }

    /// All known ones, in the order of their names.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:hex` shape.
    #[error("digest {0:?} is not of the form algorithm:hex")]
    Shape(String),
    /// The word before the colon names no algorithm we verify.
    #[error("digest algorithm {0:?} is not supported (sha256, sha384 and sha512 are)")]
    Algorithm(String),
    /// The part after the colon has the wrong length or other characters than `0-9a-f`.
    #[error("digest {digest:?} needs {expected} lower-case hex digits")]
    Hex {
        /// As it was given, shortened.
        digest: String,
        /// How many the algorithm has.
        expected: usize,
    },
}

impl Classified for DigestError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Names bytes by their hash: `sha256:` and 64 lower-case hex digits.
///
/// A value always has a known algorithm and the right number of hex digits, so it is safe as a path
/// component pair (`<alg>/<hex>`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        // A hostile text may be a megabyte long; the error quotes only its beginning.
        let quoted = || text.chars().take(140).collect::<String>();
        let (word, hex) = text
            .split_once(':')
            .ok_or_else(|| DigestError::Shape(quoted()))?;
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|a| a.name() == word)
            .ok_or_else(|| DigestError::Algorithm(word.chars().take(140).collect()))?;
        let right = hex.len() == algorithm.hex_len()
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !right {
            return Err(DigestError::Hex {
                digest: quoted(),
                expected: algorithm.hex_len(),
            });
        }
        Ok(Digest {
            algorithm,
            hex: hex.into(),
        })
    }

    /// The sha256 of bytes at hand.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// The hash of bytes at hand.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// `sha256:` and the first 12 digits, for tables read by people.
    pub fn short(&self) -> String {
        format!("{}:{}", self.algorithm.name(), &self.hex[..12])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Digest, DigestError> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A running hash of any of the known algorithms.
#[derive(Clone)]
pub enum Hasher {
    /// The usual one.
    Sha256(sha2::Sha256),
    /// See [`Algorithm::Sha384`].
    Sha384(sha2::Sha384),
    /// See [`Algorithm::Sha512`].
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts at nothing.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha384(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything so far.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self {
            Hasher::Sha256(h) => (Algorithm::Sha256, h.finalize().to_vec()),
            Hasher::Sha384(h) => (Algorithm::Sha384, h.finalize().to_vec()),
            Hasher::Sha512(h) => (Algorithm::Sha512, h.finalize().to_vec()),
        };
        Digest {
            algorithm,
            hex: hex(&bytes).into(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The digest of a layer's uncompressed tar stream (image-spec `config.md`, "Layer DiffID").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// Takes a digest that was computed over, or is claimed for, an uncompressed layer.
    pub fn new(digest: Digest) -> DiffId {
        DiffId(digest)
    }

    /// The digest itself.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a stack of layers (image-spec `config.md`, "Layer ChainID"). Only [`ChainId::extend`] makes
/// one, so every value obeys the spec's formula.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(Digest);

impl ChainId {
    /// The chain of `parent` with `layer` on top.
    pub fn extend(parent: Option<&ChainId>, layer: &DiffId) -> ChainId {
        match parent {
            None => ChainId(layer.digest().clone()),
            Some(parent) => {
                let text = format!("{} {}", parent.0, layer.digest());
                ChainId(Digest::sha256(text.as_bytes()))
            }
        }
    }

    /// The chain IDs of a whole stack, lowest first.
    pub fn stack(layers: &[DiffId]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
        for layer in layers {
            let next = ChainId::extend(chains.last(), layer);
            chains.push(next);
        }
        chains
    }

    /// The digest itself.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `printf abc | sha256sum`, `sha384sum`, `sha512sum`.
    #[test]
    fn digests_of_abc() {
        let long = |a| Digest::of(a, b"abc").to_string();
        assert_eq!(
            long(Algorithm::Sha256),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            long(Algorithm::Sha384),
            "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7"
        );
        assert_eq!(
            long(Algorithm::Sha512),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }

    #[test]
    fn m03_hostile_digests_are_refused() {
        let hex = "a".repeat(64);
        let long = "a".repeat(1 << 20);
        for text in [
            "",
            "sha256",
            "sha256:",
            ":",
            "sha256:../../x",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}", "a".repeat(63)),
            &format!("sha256:{}", "a".repeat(65)),
            &format!("md5:{hex}"),
            &format!("a+b:{hex}"),
            &format!("SHA256:{hex}"),
            &format!("sha256:{hex} "),
            &format!("sha256:{long}"),
            &format!("{long}:{hex}"),
        ] {
            let err = Digest::parse(text).expect_err("must be refused");
            assert!(err.to_string().len() < 400, "the error quotes a megabyte");
        }
        assert!(Digest::parse(&format!("sha256:{hex}")).is_ok());
    }

    /// The diff IDs of the image-spec's `config.md` example; the result was computed with Python's
    /// hashlib.
    #[test]
    fn chain_of_the_spec_example() {
        let layer = |text| DiffId::new(Digest::parse(text).expect("digest"));
        let layers = [
            layer("sha256:c6f988f4874bb0add23a778f753c65efe992244e148a1d2ec2a8b664fb66bbd1"),
            layer("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"),
        ];
        let chains = ChainId::stack(&layers);
        assert_eq!(chains[0].digest(), layers[0].digest());
        assert_eq!(
            chains[1].to_string(),
            "sha256:c3191d32a37d7159b2e30830937d2e30268ad6c375a773a8994911a3aba9b93f"
        );
    }
}
