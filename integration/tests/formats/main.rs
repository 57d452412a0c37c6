//! What is written about images and layers, held against the programs.

#![allow(missing_docs)]

mod common;

mod compress;
mod docker;
mod documents;
mod export;
mod kept;
mod layout;
mod platforms;
mod tar_ends;
mod tar_headers;
mod tar_kinds;
mod tar_numbers;
mod tar_paths;
mod tar_sparse;
mod tar_whiteouts;
mod tar_writers;
