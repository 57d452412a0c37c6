//! The collector beside everybody else, in every order that its steps and theirs can take: short scripts
//! exhaustively, long ones by chance. It is the collector itself that runs, over a store like any other,
//! and so are those beside it; only who goes on next is chosen.
//!
//! What is looked for: nothing to which something leads in the state that a removal finds is removed, and
//! after a collection that nobody disturbs nothing is left to which nothing leads. What leads where is
//! worked out a second time, plainly ([`oracle`]).

#![allow(missing_docs, unreachable_pub, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;

mod chance;
mod flaw;
mod model;
mod oracle;
mod orders;
mod scripts;
mod stage;
