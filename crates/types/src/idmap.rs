//! Which users and groups of a container are which of the host's (`user_namespaces(7)`).

use std::{fmt, str::FromStr};

use crate::{Classified, ErrorKind};

/// Most ranges of one kind that the kernel takes.
pub const ID_RANGES_MAX: usize = 340;

/// What the kernel and everybody else show of an id that a namespace has no name for.
pub const OVERFLOW_ID: u32 = 65534;

/// So many ids of a container from `inside` on are those of the host from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first one in the container.
    pub inside: u32,
    /// The first one on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Ranges that do not overlap on either side, and name the container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRanges(Vec<IdRange>);

/// Those of users and of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Of users.
    pub users: IdRanges,
    /// Of groups.
    pub groups: IdRanges,
}

/// Why a text or a list maps nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdMapError {
    /// Not three numbers.
    #[error("invalid range {0:?}: expected CONTAINER:HOST:COUNT, as in 0:100000:65536")]
    Malformed(String),
    /// It ends behind the last id.
    #[error("range {0} ends behind 4294967294, the last id")]
    TooLong(IdRange),
    /// An id would have two meanings.
    #[error("ranges {0} and {1} overlap")]
    Overlap(IdRange, IdRange),
    /// Nobody could set the container up.
    #[error("no range has the container's 0")]
    NoRoot,
    /// The kernel takes so many.
    #[error("there are more than {ID_RANGES_MAX} ranges")]
    TooMany,
}

impl Classified for IdMapError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl FromStr for IdRange {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<IdRange, IdMapError> {
        let malformed = || IdMapError::Malformed(text.chars().take(64).collect());
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u32>().map_err(|_| malformed()),
            false => Err(malformed()),
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [inside, outside, count] = parts[..] else {
            return Err(malformed());
        };
        let range = IdRange {
            inside: number(inside)?,
            outside: number(outside)?,
            count: number(count)?,
        };
        if range.count == 0 {
            return Err(malformed());
        }
        // The highest number means "nobody new" (`setresuid(2)`) and is no id.
        match [range.inside, range.outside].map(|first| first.checked_add(range.count)) {
            [Some(_), Some(_)] => Ok(range),
            _ => Err(IdMapError::TooLong(range)),
        }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.count)
    }
}

impl IdRanges {
    /// Checks what one range cannot know.
    ///
    /// # Errors
    /// When two overlap on either side, when none has the container's 0, or when there are too many.
    pub fn new(ranges: Vec<IdRange>) -> Result<IdRanges, IdMapError> {
        if ranges.len() > ID_RANGES_MAX {
            return Err(IdMapError::TooMany);
        }
        let meet = |a: u32, b: u32, (m, n): (u32, u32)| a < b + n && b < a + m;
        for (i, a) in ranges.iter().enumerate() {
            for b in &ranges[..i] {
                let counts = (a.count, b.count);
                if meet(a.inside, b.inside, counts) || meet(a.outside, b.outside, counts) {
                    return Err(IdMapError::Overlap(*b, *a));
                }
            }
        }
        let ranges = IdRanges(ranges);
        match ranges.outside(0) {
            Some(_) => Ok(ranges),
            None => Err(IdMapError::NoRoot),
        }
    }

    /// The ranges, in the order given.
    pub fn ranges(&self) -> &[IdRange] {
        &self.0
    }

    /// Which of the host's ids is one of the container's.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = inside.checked_sub(range.inside)?;
            (offset < range.count).then(|| range.outside + offset)
        })
    }
}

impl IdMap {
    /// The owner on the host of what belongs to `user` and `group` in the container; nobody where
    /// there is none.
    pub fn owner(&self, user: u32, group: u32) -> (u32, u32) {
        (
            self.users.outside(user).unwrap_or(OVERFLOW_ID),
            self.groups.outside(group).unwrap_or(OVERFLOW_ID),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IdRange {
        text.parse().expect(text)
    }

    #[test]
    fn a_range_is_three_numbers() {
        assert_eq!(range("0:100000:65536").to_string(), "0:100000:65536");
        range("0:0:4294967295");
        range("4294967294:1:1");
        for text in [
            "",
            "0",
            "0:1",
            "0:1:0",
            "0:1:2:3",
            "a:1:1",
            "-1:1:1",
            "+0:1:1",
            " 0:1:1",
            "0::1",
            "0:1:4294967296",
        ] {
            let err = text.parse::<IdRange>().expect_err(text);
            assert!(matches!(err, IdMapError::Malformed(_)), "{text}: {err}");
        }
        for text in ["1:0:4294967295", "4294967295:0:1", "0:4294967295:1"] {
            let err = text.parse::<IdRange>().expect_err(text);
            assert!(matches!(err, IdMapError::TooLong(_)), "{text}: {err}");
        }
    }

    #[test]
    fn ranges_do_not_overlap_and_have_root() {
        let of = |texts: &[&str]| IdRanges::new(texts.iter().map(|text| range(text)).collect());
        let ranges = of(&["0:1000:1", "1:100000:10", "20:0:5"]).expect("ranges");
        for (inside, outside) in [
            (0, Some(1000)),
            (1, Some(100_000)),
            (10, Some(100_009)),
            (11, None),
            (20, Some(0)),
            (24, Some(4)),
            (25, None),
            (u32::MAX, None),
        ] {
            assert_eq!(ranges.outside(inside), outside, "{inside}");
        }
        let (a, b) = (range("0:1000:10"), range("9:2000:1"));
        assert_eq!(
            of(&["0:1000:10", "9:2000:1"]),
            Err(IdMapError::Overlap(a, b))
        );
        for texts in [&["0:1000:10", "10:1009:1"][..], &["0:5:5", "5:0:6"]] {
            assert!(
                matches!(of(texts), Err(IdMapError::Overlap(..))),
                "{texts:?}"
            );
        }
        of(&["0:1000:10", "10:1010:1", "11:990:10"]).expect("side by side");
        assert_eq!(of(&["1:1000:10"]), Err(IdMapError::NoRoot));
        assert_eq!(of(&[]), Err(IdMapError::NoRoot));
        let many = (0..=340).map(|i| IdRange {
            inside: i,
            outside: i,
            count: 1,
        });
        assert_eq!(IdRanges::new(many.collect()), Err(IdMapError::TooMany));
    }

    #[test]
    fn who_has_no_name_is_nobody() {
        let ranges = |text| IdRanges::new(vec![range(text)]).expect("ranges");
        let map = IdMap {
            users: ranges("0:100000:10"),
            groups: ranges("0:200000:20"),
        };
        assert_eq!(map.owner(7, 7), (100_007, 200_007));
        assert_eq!(map.owner(10, 20), (OVERFLOW_ID, OVERFLOW_ID));
    }
}
