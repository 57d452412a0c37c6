//! Compiles the `.proto` files with `protox`, so that building needs no `protoc` on the machine.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for dir in ["cairn", "containerd", "google"] {
        println!("cargo:rerun-if-changed={dir}");
        collect(Path::new(dir), &mut files)?;
    }
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("api.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // Messages that are sent as `Any` say by this what they are.
    config.enable_type_names();
    // A secret is never told; see `secret.rs`.
    config.skip_debug([".cairn.v1.BasicCredential", ".cairn.v1.CredentialAnswer"]);
    tonic_prost_build::configure()
        .btree_map(".")
        // Blob bytes are handed from socket to file without a copy.
        .bytes(".containerd.services.content.v1")
        .bytes(".cairn.v1.ImportRequest")
        .bytes(".cairn.v1.ExportResponse")
        .include_file("api.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
