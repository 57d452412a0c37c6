//! `cairnd meta`: the records of a stopped store as a file and back.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use cairn_proto::containerd::services::{
    content::v1::{InfoRequest, content_client::ContentClient},
    images::v1::{ListImagesRequest, images_client::ImagesClient},
};
use cairn_types::Digest;

use crate::{
    daemon::{Daemon, Place, request, run},
    figures::image,
};

const NAMES: [&str; 2] = ["docker.io/library/one:1", "docker.io/library/two:1"];

fn meta(place: &Place, arguments: &[&str]) -> (ExitStatus, String, String) {
    run(place.command().arg("meta").args(arguments))
}

/// What a command that must succeed prints.
fn good(place: &Place, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = meta(place, arguments);
    assert!(status.success(), "{arguments:?}: {stderr}");
    assert_eq!(stderr, "");
    stdout
}

/// What a command that must fail complains of.
fn bad(place: &Place, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = meta(place, arguments);
    assert_eq!((status.code(), &*stdout), (Some(1), ""), "{arguments:?}");
    stderr
}

/// A stopped store of two images.
async fn stopped() -> (Place, String) {
    let place = Place::with("[gc]\nstartup_delay = \"0\"\n");
    let mut daemon = place.start();
    let channel = place.channel().await;
    for name in NAMES {
        image(&channel, name, name.as_bytes()).await;
    }
    assert!(daemon.stop().success());
    (place, Digest::sha256(NAMES[0].as_bytes()).to_string())
}

/// Its images, as a daemon with these flags serves them; and whether one's blob is there.
async fn served(place: &Place, flags: &[&str], digest: &str) -> Vec<String> {
    let mut command = place.command();
    command.args(flags);
    let mut daemon: Daemon = place.start_as(command);
    let channel = place.channel().await;
    let list = ListImagesRequest::default();
    let mut images = ImagesClient::new(channel.clone());
    let images = images.list(request(list)).await.expect("images");
    let info = InfoRequest {
        digest: digest.to_owned(),
    };
    let mut content = ContentClient::new(channel);
    content.info(request(info)).await.expect("blob");
    assert!(daemon.stop().success());
    let images = images.into_inner().images.into_iter();
    images.map(|image| image.name).collect()
}

#[tokio::test]
async fn a_store_goes_over_to_the_other_engine() {
    let (place, digest) = stopped().await;
    let file = place.path("records.jsonl").display().to_string();
    let told = good(&place, &["export", &file]);
    let text = fs::read_to_string(&file).expect("export");
    let count = text.lines().count() - 2;
    assert_eq!(told, format!("exported {count} records to {file}\n"));
    assert_eq!(good(&place, &["export"]), text);
    assert_eq!(good(&place, &["export", "-"]), text);
    let uuid = fs::read_to_string(place.path("root/uuid")).expect("uuid");
    assert!(
        text.contains(&format!("\"uuid\":\"{}\"", uuid.trim())),
        "{text}"
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&file).expect("export").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let told = good(&place, &["import", "--engine", "sled", "--replace", &file]);
    let root = place.path("root").display().to_string();
    let expected = format!(
        "imported {count} records into {root}\n\
         those before are kept in {root}/meta/backup-1.redb\n\
         they are kept by sled now: [metadata] engine = \"sled\" in the configuration\n"
    );
    assert_eq!(told, expected);
    assert_eq!(served(&place, &["--engine", "sled"], &digest).await, NAMES);
    let (_, _, stderr) = run(&mut place.command());
    assert!(stderr.contains("written by sled, not by redb"), "{stderr}");

    // And back, by way of a pipe.
    let export = good(&place, &["export"]);
    let mut command = place.command();
    command.args(["meta", "import", "--replace", "-"]);
    let (told, stderr) = fed(&mut command, export.as_bytes());
    assert!(told.contains("/meta/backup-1.sled\n"), "{told}{stderr}");
    assert_eq!(served(&place, &[], &digest).await, NAMES);
}

/// Output and errors of a program that is given `input`.
fn fed(command: &mut Command, input: &[u8]) -> (String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_store_that_is_open_is_refused() {
    let (place, _) = stopped().await;
    let file = place.path("records.jsonl").display().to_string();
    good(&place, &["export", &file]);
    let daemon = place.start();
    let root = place.path("root").display().to_string();
    for (arguments, attempted) in [
        (&["export"][..], "export the records of"),
        (&["import", "--replace", &file], "import records into"),
    ] {
        let expected = format!(
            "error: cannot {attempted} {root}: locked by cairnd (pid {})\n  \
             next:  systemctl stop cairnd.socket cairnd.service\n",
            daemon.pid()
        );
        assert_eq!(bad(&place, arguments), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_imported_changes_nothing() {
    let (place, digest) = stopped().await;
    let file = place.path("records.jsonl");
    let name = file.display().to_string();
    good(&place, &["export", &name]);
    let text = fs::read_to_string(&file).expect("export");
    assert!(bad(&place, &["export", &name]).contains("File exists"));
    let occupied = bad(&place, &["import", &name]);
    assert!(
        occupied.contains("there are records already, kept by redb"),
        "{occupied}"
    );
    assert!(occupied.contains("next:  keep them as a backup and go on: --replace"));
    let layout = bad(&place, &["import", "--replace", "--layout", "2", &name]);
    assert!(
        layout.contains("layout 2 is not known, only 1 is"),
        "{layout}"
    );
    let write = |text: &str| fs::write(&file, text).expect("write");
    write(&text.replacen("\"layout\":1", "\"layout\":3", 1));
    let layout = bad(&place, &["import", "--replace", &name]);
    assert!(
        layout.contains("layout 3 is not known, only 1 is"),
        "{layout}"
    );
    write(&text[..text.len() - 1]);
    let cut = bad(&place, &["import", "--replace", &name]);
    assert!(cut.contains("the export is cut off here"), "{cut}");
    write(&text.replacen("one:1", "uno:1", 1));
    let damaged = bad(&place, &["import", "--replace", &name]);
    assert!(
        damaged.contains("the digest of the lines before is another one"),
        "{damaged}"
    );
    assert_eq!(served(&place, &[], &digest).await, NAMES);

    // What this version could not read it does not take out either.
    fs::write(
        place.path("root/layout"),
        "{\"layout\":2,\"written_by\":\"cairn 0.9.1\"}\n",
    )
    .expect("layout");
    let newer = bad(&place, &["export"]);
    assert!(
        newer.contains("store layout 2, this cairnd reads up to 1"),
        "{newer}"
    );
}

#[tokio::test]
async fn an_absent_store_is_made_only_for_records() {
    let (place, _) = stopped().await;
    let export = good(&place, &["export"]);
    let other = Place::new();
    let none = bad(&other, &["export"]);
    assert!(none.contains("there is no store"), "{none}");
    let bare = |path: &Path| !path.exists();
    assert!(bare(&other.path("root")));
    let mut command = other.command();
    command.args(["meta", "import", "-"]);
    let (_, stderr) = fed(&mut command, b"{\"no\":1}\n");
    assert!(
        stderr.contains("line 1: this is no export of records"),
        "{stderr}"
    );
    assert!(bare(&other.path("root")));
    let mut command = other.command();
    command.args(["meta", "import", "-"]);
    let (told, stderr) = fed(&mut command, export.as_bytes());
    assert!(told.starts_with("imported "), "{told}{stderr}");
    // It is the same store, and says so.
    assert_eq!(good(&other, &["export"]), export);
    // Another one has a name of its own.
    let (third, _) = stopped().await;
    let mut command = third.command();
    command.args(["meta", "import", "--replace", "-"]);
    let (told, stderr) = fed(&mut command, export.as_bytes());
    assert!(
        told.contains("they are those of the store "),
        "{told}{stderr}"
    );
}
