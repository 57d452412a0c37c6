//! The kernel: directory descriptors, `openat2`, xattrs, mounts, durable publish, fault points.
//!
//! Every system call that touches the store goes through this crate, which counts them and can make
//! the n-th one fail ([`fault`]); [`steer`] is where a test can hold threads. It is the only place that may use `unsafe`. What a path of an image
//! means is decided here and nowhere else: such paths are resolved by the kernel inside an open
//! [`Dir`], never joined to a string. What a processor has beyond its kind ([`cpu`]) is no matter of the
//! kernel's and here for its `unsafe`.

pub mod census;
pub mod cpu;
mod dir;
pub mod durable;
mod error;
pub mod fault;
pub mod lock;
pub mod mount;
mod part;
mod place;
pub mod raw;
pub mod steer;
mod tree;
mod walk;
mod xattr;

pub use dir::{Dir, Space};
pub use error::{Error, Result};
pub use part::Part;
pub use place::{boot_id, is_crowded, is_root};
pub use rustix::fs::{FileType, OFlags, Stat, Timespec};
pub use tree::{DirEntry, Meter};
