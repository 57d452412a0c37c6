//! What takes minutes and leaves a processor idle most of the time. Programs of tests run one after the
//! other, the tests of one program side by side: so these are one, and take half the time.
#![allow(missing_docs)]

mod bundles;
mod client;
mod faults_disk;
mod real;
mod stacks;
mod suites;
