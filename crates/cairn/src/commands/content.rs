//! `cairn content …`.

use cairn_types::ErrorKind;
use serde_json::json;

use super::{Context, Result, absent, labels, now, uploads};
use crate::{
    args::{ContentGet, ContentLs, ContentVerb},
    client::Client,
    error::{Problem, quote},
    filter, model,
    save::save,
    size, view,
};

/// Fewest hex digits that a blob can be removed by: a slip of the mouse is no name.
const REMOVE_DIGITS_MIN: usize = 12;

/// Runs one verb.
pub fn run(context: &Context, verb: ContentVerb) -> Result {
    match verb {
        ContentVerb::Ls(args) => ls(context, &args),
        ContentVerb::Get(args) => get(context, &args),
        ContentVerb::Info { digest } => info(context, &digest),
        ContentVerb::Rm { digests } => rm(context, &digests),
        ContentVerb::Put(args) => uploads::put(context, &args),
        ContentVerb::Ingest(args) => uploads::put(context, &args.into()),
        ContentVerb::Label(args) => labels::blob(context, &args),
        ContentVerb::Ingests(args) => uploads::ingests(context, &args),
        ContentVerb::Abort { refs } => uploads::abort(context, &refs),
        ContentVerb::Edit(_) => Err(absent("a blob is its digest: it cannot be changed")
            .next("cairn content get -o FILE DIGEST, and after a change: cairn content put FILE")
            .into()),
    }
}

fn ls(context: &Context, args: &ContentLs) -> Result {
    let filters = filter::parse::<model::Blob>(&args.filters)?;
    let mut blobs = Client::open(&context.global)?.blobs()?;
    blobs.retain(|blob| filter::passes(&filters, blob));
    if context.wants_names() {
        context.names(blobs.iter().map(|blob| &*blob.digest));
    } else {
        context.list(&view::content(&blobs, now()), &blobs);
    }
    Ok(())
}

fn get(context: &Context, args: &ContentGet) -> Result {
    if args.output.is_none() && context.global.wants_json() {
        let text = "standard output is taken by the blob's own bytes";
        return Err(Problem::usage(text)
            .next("leave out --json")
            .next(format!("cairn content info --json {}", quote(&args.digest)))
            .into());
    }
    let client = Client::open(&context.global)?;
    let digest = client.resolve_blob(&args.digest, "read blob")?;
    let (first, last) = args.range.map_or((0, None), |r| (r.first, r.last));
    let Some(path) = &args.output else {
        if context.out.stdout.columns.is_some() && !client.is_text(&digest)? {
            let reason = "it is not text, and standard output is a terminal";
            let kind = ErrorKind::FailedPrecondition;
            let problem = Problem::new(kind, "show blob", &digest.to_string(), reason);
            return Err(problem
                .next(format!("cairn content get -o FILE {digest}"))
                .into());
        }
        client.copy_blob(&digest, first, last, &mut context.out.writer())?;
        return Ok(());
    };
    let bytes = save(path, |file| client.copy_blob(&digest, first, last, file))?;
    let file = path.display().to_string();
    if context.global.wants_json() {
        context
            .out
            .json(&json!({"digest": digest.to_string(), "file": file, "size": bytes}));
    } else if !context.out.quiet {
        let digest = context.digest(&digest.to_string());
        let (file, bytes) = (quote(&file), size::bytes(bytes));
        context
            .out
            .line(format!("wrote {digest} to {file}  {bytes}"));
    }
    Ok(())
}

fn info(context: &Context, text: &str) -> Result {
    let client = Client::open(&context.global)?;
    let blob = client.blob(&client.resolve_blob(text, "inspect blob")?)?;
    if context.global.wants_json() {
        context.out.json(&blob);
    } else if context.out.quiet {
        context.out.line(&blob.digest);
    } else {
        context.out.text(&view::blob(&blob));
    }
    Ok(())
}

fn rm(context: &Context, texts: &[String]) -> Result {
    for text in texts {
        let digits = super::hex_digits(text);
        if digits.is_some_and(|n| n < REMOVE_DIGITS_MIN) {
            return Err(super::too_few_digits("blob", text, "content")
                .into_usage()
                .into());
        }
    }
    let client = Client::open(&context.global)?;
    context.removing(texts, |text| {
        let digest = client.resolve_blob(text, "remove blob")?;
        client.remove_blob(&digest)?;
        Ok(vec![digest.to_string().into()])
    })
}
