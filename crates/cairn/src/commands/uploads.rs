//! `cairn content put`, and the uploads that are not complete.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use cairn_types::ErrorKind;

use super::{Context, Result, now};
use crate::{
    args::{ContentIngests, ContentPut, LabelChange},
    client::{Client, Upload, kept},
    error::{Problem, io_reason, quote},
    signal, view,
};

/// `content put`
pub fn put(context: &Context, args: &ContentPut) -> Result {
    let file = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let (name, mut from, length) = match file {
        Some(path) => open(path)?,
        None if io::stdin().is_terminal() => {
            let text = "bytes are expected on standard input, not from a terminal";
            return Err(Problem::usage(text).next("cairn content put FILE").into());
        }
        None => (
            "standard input".to_owned(),
            Box::new(io::stdin()) as _,
            None,
        ),
    };
    let client = Client::open(&context.global)?;
    let own = args.r#ref.is_none();
    let reference = args.r#ref.clone().unwrap_or_else(made_up);
    let mut labels: cairn_types::Labels = args.label.iter().cloned().collect();
    if args.lease.is_none() {
        labels.extend(kept());
    }
    let upload = Upload {
        name: &name,
        reference: &reference,
        size: args.expected_size.or(length),
        expected: args.expected_digest.as_ref(),
        labels,
        lease: args.lease.as_ref().map(|lease| lease.as_str()),
    };
    signal::resumable(!own);
    let stored = client.put(&mut *from, &upload);
    signal::resumable(false);
    if stored.is_err() && own {
        // Nobody could ask for it again. The first failure is the one to hear about; an upload that
        // was never begun is not there, either.
        let _ = client.ingest_abort(&reference);
    }
    let stored = stored?;
    if stored.existed {
        let change = |(key, value): (&String, &String)| LabelChange {
            key: key.clone(),
            value: value.clone(),
        };
        let changes: Vec<LabelChange> = upload.labels.iter().map(change).collect();
        if !changes.is_empty() {
            client.label_blob(&stored.digest, &changes)?;
        }
    }
    if args.lease.is_none() {
        context.out.note(
            "labelled containerd.io/gc.root, since nothing refers to it yet: cairn gc leaves it alone",
        );
    }
    let digest = stored.digest.to_string();
    if context.global.wants_json() {
        context.out.json(&client.blob(&stored.digest)?);
    } else if context.out.quiet {
        context.out.line(digest);
    } else {
        context.out.line(context.digest(&digest));
    }
    Ok(())
}

type Opened = (String, Box<dyn Read>, Option<u64>);

fn open(path: &Path) -> Result<Opened> {
    let name = path.display().to_string();
    let failed = |kind, reason: &str| Problem::new(kind, "put blob", &name, reason);
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => failed(ErrorKind::NotFound, "no such file"),
        io::ErrorKind::PermissionDenied => failed(ErrorKind::PermissionDenied, "permission denied"),
        _ => failed(ErrorKind::Internal, &io_reason(&err)),
    })?;
    if metadata.is_dir() {
        let problem = failed(ErrorKind::InvalidArgument, "it is a directory");
        return Err(problem.next("cairn images import DIR").into());
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((name, Box::new(file), length))
}

/// A ref that no other upload has.
fn made_up() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    format!("put-{}-{nanos}", std::process::id())
}

/// `content ingests`
pub fn ingests(context: &Context, args: &ContentIngests) -> Result {
    let pattern = args.pattern.as_deref().unwrap_or_default();
    let pattern = regex::Regex::new(pattern).map_err(|_| {
        let text = format!("{} is no regular expression", quote(pattern));
        Problem::usage(text).next("cairn content ingests")
    })?;
    let mut ingests = Client::open(&context.global)?.ingests()?;
    ingests.retain(|ingest| pattern.is_match(&ingest.reference));
    if context.wants_names() {
        context.names(ingests.iter().map(|ingest| &*ingest.reference));
    } else {
        context.list(&view::ingests(&ingests, now()), &ingests);
    }
    Ok(())
}

/// `content abort`
pub fn abort(context: &Context, refs: &[String]) -> Result {
    let client = Client::open(&context.global)?;
    context.removing(refs, |reference| {
        client.ingest_abort(reference)?;
        Ok(vec![reference.clone().into()])
    })
}
