//! `cairn bundle …`.

use std::path::Path;

use cairn_types::{ErrorKind, ImageName, Labels};
use serde_json::Value;

use super::{Context, Gone, Result, now, registry};
use crate::{
    args::{BundleCreate, BundleOptions, BundlePull, BundleRm, BundleVerb, NetChoice},
    client::{BundleRequest, Client, Net, PullOptions, Who},
    error::{Problem, io_reason, quote},
    view,
};

/// Runs one verb.
pub fn run(context: &Context, verb: BundleVerb) -> Result {
    match verb {
        BundleVerb::Create(args) => create(context, args),
        BundleVerb::Unpack(args) => create(context, args.into()),
        BundleVerb::Rm(args) => rm(context, &args),
        BundleVerb::Ls => ls(context),
    }
}

fn create(context: &Context, args: BundleCreate) -> Result {
    let BundleCreate {
        image,
        dir,
        options: args,
    } = args;
    args.foreign.checked()?;
    let config = args.config.as_deref().map(document).transpose()?;
    let owners = args.owners()?;
    let client = Client::open(&context.global)?;
    let image = fetched(context, &client, &image, &args)?;
    let mut request = BundleRequest::new(client.namespace().clone(), image, dir);
    request.id = args.id;
    request.platform = args.platform;
    request.env = args.env;
    request.cwd = args.cwd;
    request.user = args.user;
    request.hostname = args.hostname;
    request.tty = args.tty;
    request.read_only = args.read_only;
    request.entrypoint = args.entrypoint;
    request.args = if args.args.is_empty() {
        args.cmd
    } else {
        args.args
    };
    request.owners = owners;
    request.copy = args.copy;
    request.config = config;
    request.net = match args.net {
        NetChoice::None => Net::None,
        NetChoice::Host => Net::Host,
    };
    let progress = context.progress("unpack", Some(request.image.as_str()))?;
    let made = client.bundle_create(&request, &progress)?;
    drop(progress);
    for label in &made.withheld_labels {
        context.out.note(format!(
            "label {} of the image is not passed on: a runtime would obey it",
            quote(label)
        ));
    }
    if made.copied && !request.copy {
        context.out.note(
            "its files were copied: this kernel, or the file system of the store, cannot show them to \
             be other users'",
        );
    }
    if let Some(closed) = &made.closed {
        let closed = quote(&closed.to_string_lossy());
        context.out.note(format!(
            "the container's root cannot go through {closed}: chmod o+x {closed}, or choose another DIR"
        ));
    }
    let dir = made.dir.display().to_string();
    if context.global.wants_json() {
        let document = client
            .bundles()?
            .into_iter()
            .find(|bundle| bundle.dir == dir);
        context.out.json(&document);
    } else if context.out.quiet {
        context.out.line(&dir);
    } else {
        let dir = quote(&dir);
        context.out.line(match made.remounted {
            true => format!("remounted {dir}"),
            false => format!("created {dir} from {} ({})", request.image, made.platform),
        });
        context
            .out
            .line(format!("run it:  runc run -b {dir} {}", made.id));
    }
    Ok(())
}

/// The image, pulled first where that is wanted.
fn fetched(
    context: &Context,
    client: &Client,
    text: &str,
    args: &BundleOptions,
) -> Result<ImageName> {
    let here = || client.resolve(text, "create bundle from");
    match args.pull {
        BundlePull::Never => return Ok(here()?),
        BundlePull::Always => {}
        BundlePull::Missing => match here() {
            Err(problem) if is_elsewhere(&problem, text) => {}
            name => return Ok(name?),
        },
    }
    let name = registry::named(text)?;
    let user = args.creds.as_ref().map(|user| (user, "--creds"));
    let who = Who {
        given: registry::given(user, args.password_stdin, args.refresh.as_ref(), &name)?,
        authfile: args.reach.authfile.clone(),
    };
    let options = PullOptions {
        name: name.clone(),
        remote: registry::remote(&args.reach)?.traced(&args.http),
        platforms: args.platform.iter().cloned().collect(),
        all_platforms: false,
        unpack: true,
        missing_only: false,
        sync_fs: false,
        labels: Labels::new(),
    };
    registry::fetch(context, client, options, &who)?;
    Ok(name)
}

/// Whether a registry may have what is not here. What another namespace has is no riddle, and what is
/// named by its digest alone no registry is known for.
fn is_elsewhere(problem: &Problem, text: &str) -> bool {
    problem.kind == ErrorKind::NotFound
        && problem.found_in.is_empty()
        && !text.starts_with("sha256:")
        && ImageName::normalize(text).is_ok()
}

/// What is to be laid over `config.json`.
fn document(path: &Path) -> Result<Value> {
    let failed = |kind, reason: &str| Problem::new(kind, "read", &path.to_string_lossy(), reason);
    let text = std::fs::read(path).map_err(|err| {
        let kind = match err.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidArgument,
        };
        failed(kind, &io_reason(&err))
    })?;
    let refused = || failed(ErrorKind::InvalidArgument, "it is not a JSON object");
    match serde_json::from_slice(&text) {
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(_) => Err(refused().into()),
        Err(err) => Err(refused().cause(err.to_string()).into()),
    }
}

fn rm(context: &Context, args: &BundleRm) -> Result {
    let client = Client::open(&context.global)?;
    context.removing(&args.dirs, |dir| {
        let name = client.bundle_remove(dir)?.display().to_string();
        let note = String::new();
        Ok(vec![Gone { name, note }])
    })
}

fn ls(context: &Context) -> Result {
    let bundles = Client::open(&context.global)?.bundles()?;
    if context.out.quiet {
        context.names(bundles.iter().map(|bundle| &*bundle.dir));
    } else {
        context.list(&view::bundles(&bundles, now()), &bundles);
    }
    Ok(())
}
