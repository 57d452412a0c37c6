//! `cairn images pull`, `cairn images push`, `cairn explain-host`.

use std::{io, path::PathBuf, time::Duration};

use cairn_registry::credentials::{Credential, user};
use cairn_types::{ErrorKind, ImageName};

use super::{Context, Result, images::local};
use crate::{
    args::{ExplainHost, Http, Login, Pull, PullPolicy, Push, Reach, Secret},
    ask,
    client::{self, Client, PullOptions, PushOptions, Remote, Who},
    error::{Problem, io_reason, quote},
    model, progress, signal, size, view,
};

/// `pull`
pub fn pull(context: &Context, args: Pull) -> Result {
    args.platforms.checked()?;
    local(context, &args.local);
    if args.skip_metadata {
        let text = "--skip-metadata has no effect: of other platforms nothing is fetched anyway";
        context.out.note(text);
    }
    let (unpack, print_chain) = (args.unpacks(), args.print_chainid);
    let name = named(&args.image)?;
    let mut remote = remote(&args.reach)?.traced(&args.http);
    remote.max_concurrent = args.max_concurrent_downloads.unwrap_or_default();
    let who = who(&args.login, &args.reach, &name)?;
    let options = PullOptions {
        name,
        remote,
        platforms: args.platforms.platform,
        all_platforms: args.platforms.all_platforms,
        unpack,
        missing_only: args.pull_policy == PullPolicy::Missing,
        sync_fs: args.sync_fs,
        labels: args.label.into_iter().collect(),
    };
    let client = Client::open(&context.global)?;
    let pulled = fetch(context, &client, options, &who)?;
    if context.global.wants_json() {
        context.out.json(&pulled);
    } else if context.out.quiet {
        context.out.line(&pulled.image.name);
    } else {
        context
            .out
            .text(&view::pulled(&pulled, unpack, print_chain));
    }
    Ok(())
}

/// Fetches an image and shows how it goes; what it came to is for the caller to say.
pub(super) fn fetch(
    context: &Context,
    client: &Client,
    options: PullOptions,
    who: &Who,
) -> Result<model::Transfer> {
    let progress = context.progress("pull", Some(options.name.as_str()))?;
    signal::resumable(true);
    let pulled = client.pull(options, who, &progress)?;
    signal::resumable(false);
    drop(progress);
    tell_times(context, &pulled);
    Ok(pulled)
}

/// `push`
pub fn push(context: &Context, args: Push) -> Result {
    args.platforms.checked()?;
    local(context, &args.local);
    let remote_name = named(&args.remote)?;
    let mut remote = remote(&args.reach)?.traced(&args.http);
    remote.max_concurrent = args.max_concurrent_uploaded_layers.unwrap_or_default();
    let who = who(&args.login, &args.reach, &remote_name)?;
    let client = Client::open(&context.global)?;
    let here = args.image.as_deref().unwrap_or(&args.remote);
    let name = client.resolve(here, "push image")?;
    let options = PushOptions {
        name: name.clone(),
        remote_name: remote_name.clone(),
        remote,
        platforms: args.platforms.platform,
        manifest: args.manifest,
        allow_non_distributable: args.allow_non_distributable_blobs,
    };
    let progress = context.progress("push", Some(remote_name.as_str()))?;
    signal::resumable(true);
    let pushed = client.push(options, &who, &progress)?;
    signal::resumable(false);
    drop(progress);
    tell_times(context, &pushed);
    if let Some(platform) = &pushed.only_platform {
        context.out.note(format!(
            "{} now means {platform} alone, {}: no other platform of {} is here; for all of them: \
             cairn images pull --all-platforms {}, then push again",
            quote(remote_name.as_str()),
            pushed.digest,
            quote(name.as_str()),
            quote(name.as_str()),
        ));
    }
    if context.global.wants_json() {
        context.out.json(&pushed);
    } else if context.out.quiet {
        context.out.line(remote_name.as_str());
    } else {
        context
            .out
            .text(&view::pushed(&pushed, remote_name.as_str()));
    }
    Ok(())
}

/// `explain-host`
pub fn explain_host(context: &Context, args: &ExplainHost) -> Result {
    let name = match is_registry(&args.image) {
        true => args.image.clone(),
        false => named(&args.image)?.to_string(),
    };
    let remote = remote(&args.reach)?;
    let who = Who {
        // Whose password it is does not turn on the password.
        given: args.login.user.as_ref().map(|Secret(text)| {
            let (user, secret) = (user(text).0.to_owned(), String::new());
            (Credential::Basic { user, secret }, "-u")
        }),
        authfile: args.reach.authfile.clone(),
    };
    let who = match &args.login.refresh {
        Some(_) => Who {
            given: Some((Credential::Identity(String::new()), "--refresh")),
            ..who
        },
        None => who,
    };
    let hosts = client::explain_host(&context.global, &name, &remote, &who)?;
    if context.wants_names() {
        context.names(hosts.iter().map(|host| &*host.url));
    } else {
        context.list(&view::hosts(&hosts), &hosts);
    }
    Ok(())
}

/// A registry alone, as docker would tell one from a repository: by a dot or a port, or as localhost.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let known = host == "localhost" || host.contains('.');
    known && !text.contains(['/', '@']) && port.parse::<u16>().is_ok()
}

/// The full name of what was typed, as docker completes it.
pub(super) fn named(text: &str) -> Result<ImageName> {
    ImageName::normalize(text).map_err(|err| Problem::from(err).into_usage().into())
}

/// How the registry is reached. Files are the server's to read, who is in another directory.
pub(super) fn remote(reach: &Reach) -> Result<Remote> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|err| {
            let path = quote(&path.to_string_lossy());
            Problem::usage(format!("{path} is no path: {}", io_reason(&err)))
        })
    };
    let file = |path: &Option<PathBuf>| path.as_ref().map(absolute).transpose();
    let dirs = reach.hosts_dir.iter().map(absolute);
    Ok(Remote {
        plain_http: reach.plain_http,
        skip_verify: reach.skips_verify(),
        hosts_dirs: dirs.collect::<std::result::Result<_, _>>()?,
        ca: file(&reach.tlscacert)?,
        cert: file(&reach.tlscert)?,
        key: file(&reach.tlskey)?,
        limit_rate: reach.limit_rate.unwrap_or_default(),
        ..Remote::default()
    })
}

impl Remote {
    /// The same, and its requests are told as flags say.
    pub(super) fn traced(self, http: &Http) -> Remote {
        Remote {
            http_trace: http.http_trace,
            http_dump: http.http_dump,
            ..self
        }
    }
}

/// Who asks, as flags have it.
fn who(login: &Login, reach: &Reach, name: &ImageName) -> Result<Who> {
    let user = login.user.as_ref().map(|user| (user, "-u"));
    Ok(Who {
        given: given(user, login.password_stdin, login.refresh.as_ref(), name)?,
        authfile: reach.authfile.clone(),
    })
}

/// A credential of a flag, and which it was. Bundles have users of their own, and so another flag for
/// those of registries.
pub(super) fn given(
    user: Option<(&Secret, &'static str)>,
    password_stdin: bool,
    refresh: Option<&Secret>,
    name: &ImageName,
) -> Result<Option<(Credential, &'static str)>> {
    Ok(match (user, refresh) {
        (Some((Secret(text), flag)), _) => Some((basic(text, password_stdin, flag, name)?, flag)),
        (None, Some(Secret(token))) => Some((Credential::Identity(token.clone()), "--refresh")),
        (None, None) => None,
    })
}

/// The user of a flag with his password: from the flag, from standard input, or asked for.
fn basic(text: &str, from_stdin: bool, flag: &'static str, name: &ImageName) -> Result<Credential> {
    let (user, password) = user(text);
    if user.is_empty() {
        let text = format!("{flag} wants a name before the colon");
        return Err(Problem::usage(text).next(format!("{flag} USER")).into());
    }
    let registry = name.as_str().split('/').next().unwrap_or_default();
    let secret = match (password, from_stdin) {
        (Some(_), true) => {
            let text = format!("with --password-stdin {flag} has only the name");
            return Err(Problem::usage(text)
                .next(format!("{flag} {}", quote(user)))
                .into());
        }
        (Some(password), false) => password.to_owned(),
        (None, true) => ask::line(&mut io::stdin().lock()).map_err(|err| {
            let problem = Problem::new(ErrorKind::InvalidArgument, "read", "", io_reason(&err));
            of_password(problem, "standard input")
        })?,
        (None, false) => {
            let user = crate::table::printable(user);
            ask::password(&format!("password of {user} at {registry}: ")).map_err(|err| {
                let text = "there is no terminal to ask for the password on";
                let problem = Problem::usage(text).next(format!("{flag} USER --password-stdin"));
                problem.cause(io_reason(&err))
            })?
        }
    };
    if secret.is_empty() {
        return Err(Problem::usage(format!("the password of {} is empty", quote(user))).into());
    }
    let user = user.to_owned();
    Ok(Credential::Basic { user, secret })
}

fn of_password(mut problem: Problem, from: &str) -> Problem {
    problem.attempted = format!("read the password from {from}");
    problem
}

/// `-v`: where the time went.
fn tell_times(context: &Context, done: &model::Transfer) {
    let all = done.layers.len();
    for (number, layer) in (1..).zip(&done.layers) {
        let host = match &layer.host {
            Some(host) if layer.attempts > 1 => format!("{host} in {} requests", layer.attempts),
            Some(host) => host.clone(),
            None => "nothing to do".to_owned(),
        };
        let times = layer.timing_ms.map(|t| format!("; {}", progress::parts(t)));
        context.out.trace(format!(
            "layer {number} of {all} {}, {}: {host}{}",
            layer.digest,
            size::bytes(layer.size),
            times.unwrap_or_default()
        ));
    }
    let wall = size::duration(Duration::from_millis(done.wall_ms));
    context.out.trace(format!("all in all {wall}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_an_image() {
        for text in [
            "registry.example.com",
            "localhost",
            "localhost:5000",
            "10.0.0.1:80",
        ] {
            assert!(is_registry(text), "{text}");
        }
        for text in [
            "busybox",
            "busybox:1.36",
            "h.example/a",
            "localhost:x",
            "a.b:1.36",
        ] {
            assert!(!is_registry(text), "{text}");
        }
    }

    #[test]
    fn passwords_are_not_in_what_is_said() {
        let name = named("registry.example.com/shop/web").expect("name");
        let found = basic("alice:hi:dden", false, "-u", &name).expect("both are there");
        let (user, secret) = ("alice".to_owned(), "hi:dden".to_owned());
        assert!(found == Credential::Basic { user, secret });
        for (text, stdin) in [
            ("alice:hidden", true),
            (":hidden", false),
            ("alice:", false),
        ] {
            let Err(super::super::Stop::Problem(problem)) = basic(text, stdin, "-u", &name) else {
                panic!("{text} was taken");
            };
            assert_eq!(problem.exit_code(), 2);
            let all = format!("{problem:?}");
            assert!(!all.contains("hidden"), "{all}");
        }
    }
}
