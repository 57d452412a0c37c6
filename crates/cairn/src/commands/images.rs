//! `cairn images …`.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use cairn_types::{ErrorKind, ImageName};

use super::{Context, Gone, Result, Stop, absent, labels, newer, now, registry};
use crate::{
    args::{
        Check, Export, ImagesVerb, Import, Inspect, List, Local, MountImage, Remove, SortBy, Tag,
        Unmount, Usage,
    },
    client::{Client, ExportOptions, ImportOptions, MountOptions, NewImage, Source},
    error::{Problem, quote},
    filter, model,
    save::save,
    signal, size,
    table::short_digest,
    view,
};

/// Where `mount` without a target puts things.
const MOUNTS: &str = "/run/cairn/mounts";

/// Runs one verb.
pub fn run(context: &Context, verb: ImagesVerb) -> Result {
    match verb {
        ImagesVerb::Pull(args) => registry::pull(context, args),
        ImagesVerb::Push(args) => registry::push(context, args),
        ImagesVerb::Import(args) => import(context, args),
        ImagesVerb::Export(args) => export(context, &args),
        ImagesVerb::Ls(args) => ls(context, &args),
        ImagesVerb::Inspect(args) => inspect(context, &args),
        ImagesVerb::Tag(args) => tag(context, &args),
        ImagesVerb::Rm(args) => rm(context, &args),
        ImagesVerb::Mount(args) => mount(context, &args),
        ImagesVerb::Unmount(args) => unmount(context, &args),
        ImagesVerb::Usage(args) => usage(context, &args),
        ImagesVerb::Check(args) => check(context, &args.check),
        ImagesVerb::Label(args) => labels::image(context, &args),
        ImagesVerb::Convert(_) => Err(absent("cairn keeps images as they came")
            .next("skopeo copy --format oci SOURCE oci-archive:FILE && cairn images import FILE")
            .into()),
    }
}

fn import(context: &Context, args: Import) -> Result {
    args.platforms.checked()?;
    local(context, &args.local);
    let path = args.source().cloned().unwrap_or_else(|| PathBuf::from("-"));
    let standard = path == Path::new("-");
    if standard && io::stdin().is_terminal() {
        let text = "an archive is expected on standard input, not a terminal";
        return Err(Problem::usage(text).next("cairn images import FILE").into());
    }
    let source = if standard {
        Source::Stdin
    } else {
        Source::Path(path)
    };
    let progress = context.progress("import", None)?;
    signal::resumable(true);
    let client = Client::open(&context.global)?;
    let options = ImportOptions {
        base_name: args.base_name,
        index_name: args.index_name,
        // What has no name gets one by its digest anyway.
        digests: args.digests && !args.skip_digest_for_named,
        platforms: args.platforms.platform,
        all_platforms: args.platforms.all_platforms,
        unpack: !args.no_unpack,
        discard_unpacked_layers: args.discard_unpacked_layers,
        compress_blobs: args.compress_blobs,
        sync_fs: args.sync_fs,
        labels: args.label.into_iter().collect(),
    };
    let images = client.import(source, options, &progress)?;
    signal::resumable(false);
    drop(progress);
    if context.global.wants_json() {
        let documents: Vec<&model::Image> = images.iter().map(|i| &i.image).collect();
        context.out.json(&documents);
    } else if context.out.quiet {
        context.names(images.iter().map(|i| &*i.image.name));
    } else {
        images
            .iter()
            .for_each(|i| context.out.line(imported(i, context.short_digests())));
    }
    Ok(())
}

/// A flag that scripts pass and that decides nothing here.
pub(super) fn local(context: &Context, flag: &Local) {
    if flag.local {
        let text = "--local has no effect: with --root DIR a store is used without a daemon";
        context.out.note(text);
    }
}

/// `imported REF  DIGEST  PLATFORM  SIZE, unpacked SIZE`
fn imported(new: &NewImage, short: bool) -> String {
    let digest = &new.image.target.digest;
    let digest = if short {
        short_digest(digest)
    } else {
        digest.clone()
    };
    let (name, bytes) = (quote(&new.image.name), size::bytes(new.image.content_size));
    let unpacked = match new.image.unpacked_size {
        Some(n) => format!("unpacked {}", size::bytes(n)),
        None => "not unpacked".to_owned(),
    };
    format!(
        "imported {name}  {digest}  {}  {bytes}, {unpacked}",
        new.platform
    )
}

fn export(context: &Context, args: &Export) -> Result {
    args.platforms.checked()?;
    local(context, &args.local);
    let (out, texts) = match (&args.output, args.words.as_slice()) {
        (Some(out), texts) => (&**out, texts),
        (None, [out, texts @ ..]) if !texts.is_empty() => (&**out, texts),
        (None, words) => {
            let text = "which images? the first word is the file to write";
            // `docker save IMAGE` writes to standard output.
            let (file, image) = match words {
                [word] if word.contains(".tar") || word.starts_with(['/', '.', '-']) => {
                    (&**word, "REF")
                }
                [word] => ("FILE", &**word),
                _ => ("FILE", "REF"),
            };
            let next = format!("cairn images export {} {}", quote(file), quote(image));
            return Err(Problem::usage(text).next(next).into());
        }
    };
    let standard = out == "-";
    if standard && io::stdout().is_terminal() {
        let text = "an archive is not written to a terminal";
        return Err(Problem::usage(text)
            .next("cairn images export FILE REF")
            .into());
    }
    if standard && context.global.wants_json() {
        let text = "standard output is taken by the archive";
        return Err(Problem::usage(text).next("leave out --json").into());
    }
    let progress = context.progress("export", None)?;
    let client = Client::open(&context.global)?;
    let resolve = |text: &String| client.resolve(text, "export image");
    let names = texts
        .iter()
        .map(resolve)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let options = ExportOptions {
        names: names.clone(),
        platforms: args.platforms.platform.clone(),
        all_platforms: args.platforms.all_platforms,
        skip_manifest_json: args.skip_manifest_json,
        skip_non_distributable: args.skip_non_distributable,
        only_attestations: args.only_attestations,
    };
    if standard {
        client.export(&mut context.out.writer(), options, &progress)?;
        return Ok(());
    }
    let bytes = save(Path::new(out), |file| {
        client
            .export(file, options, &progress)
            .map_err(|mut problem| {
                if problem.kind == ErrorKind::ResourceExhausted {
                    problem.location = Some(out.to_owned());
                    problem = problem.next("choose a file on another disk");
                }
                problem
            })
    })?;
    drop(progress);
    if context.global.wants_json() {
        let names: Vec<&str> = names.iter().map(ImageName::as_str).collect();
        context
            .out
            .json(&serde_json::json!({"file": out, "images": names, "size": bytes}));
    } else if !context.out.quiet {
        let names: Vec<String> = names.iter().map(|n| quote(n.as_str())).collect();
        let (file, bytes) = (quote(out), size::bytes(bytes));
        context
            .out
            .line(format!("exported {} to {file}  {bytes}", names.join(" ")));
    }
    Ok(())
}

/// The images that the filters let through, in order.
fn selected(client: &Client, args: &Check) -> Result<Vec<model::Image>> {
    let filters = filter::parse::<model::Image>(args.filters.iter().chain(&args.filter))?;
    let mut images = client.images()?;
    images.retain(|image| filter::passes(&filters, image));
    images.sort_by(|a, b| {
        let by = match args.sort.by {
            SortBy::Name => std::cmp::Ordering::Equal,
            SortBy::Size => a.content_size.cmp(&b.content_size),
            SortBy::Added => newer(&a.created_at, &b.created_at),
        };
        by.then_with(|| a.name.cmp(&b.name))
    });
    if args.sort.descending {
        images.reverse();
    }
    Ok(images)
}

fn ls(context: &Context, args: &List) -> Result {
    let images = selected(&Client::open(&context.global)?, &args.check)?;
    if context.wants_names() {
        context.names(images.iter().map(|i| &*i.name));
    } else {
        context.list(&view::images(&images, args.wide, now()), &images);
    }
    Ok(())
}

fn check(context: &Context, args: &Check) -> Result {
    let images = selected(&Client::open(&context.global)?, args)?;
    if context.wants_names() {
        context.names(images.iter().filter(|i| i.complete).map(|i| &*i.name));
    } else {
        context.list(&view::check(&images), &images);
    }
    if images.iter().all(|i| i.complete) {
        Ok(())
    } else {
        Err(Stop::Failed)
    }
}

fn inspect(context: &Context, args: &Inspect) -> Result {
    args.foreign.checked()?;
    if args.content && context.global.wants_json() {
        let text = "--content shows documents to a person, a program takes their bytes";
        return Err(Problem::usage(text)
            .next("cairn images inspect --raw REF")
            .into());
    }
    if (args.raw || args.config) && context.global.wants_json() {
        let text = "standard output is taken by the document's own bytes";
        return Err(Problem::usage(text).next("leave out --json").into());
    }
    let client = Client::open(&context.global)?;
    let name = client.resolve(&args.image, "inspect image")?;
    let mut details = client.inspect(&name, args.platform.as_ref())?;
    if args.content && !context.out.quiet {
        client.read_documents(&mut details.tree.root)?;
    }
    if args.raw || args.config {
        let (what, bytes) = match args.raw {
            true => ("manifest", &details.manifest),
            false => ("configuration", &details.config),
        };
        if bytes.is_empty() {
            let reason = format!("its {what} for this platform is not here");
            let attempted = "inspect image";
            let problem = Problem::new(ErrorKind::NotFound, attempted, name.as_str(), reason);
            return Err(problem
                .next(format!("cairn images inspect {}", quote(name.as_str())))
                .into());
        }
        context.out.bytes(bytes);
    } else if args.timing && !context.wants_names() {
        let table = view::timing(&details.layers);
        let (image, layers) = (details.image, details.layers);
        context.list(&table, &model::Timed { image, layers });
    } else if context.global.wants_json() {
        context.out.json(&details.image);
    } else if context.out.quiet {
        context.out.line(&details.image.name);
    } else {
        context
            .out
            .text(&view::tree(&details.tree, context.short_digests()));
    }
    Ok(())
}

fn tag(context: &Context, args: &Tag) -> Result {
    local(context, &args.local);
    let parse = |text: &String| match args.skip_reference_check {
        true => ImageName::parse(text),
        false => ImageName::normalize(text),
    };
    let as_usage = |err| Problem::from(err).into_usage();
    let targets = args
        .targets
        .iter()
        .map(parse)
        .collect::<std::result::Result<Vec<_>, _>>();
    let targets = targets.map_err(as_usage)?;
    let client = Client::open(&context.global)?;
    let source = client.resolve(&args.source, "tag image")?;
    let mut documents = Vec::new();
    let result = context.each(&targets, |target| {
        client.tag(&source, target, args.force)?;
        if context.global.wants_json() {
            documents.push(client.image(target)?);
        } else if !context.out.quiet {
            context.out.line(target.as_str());
        }
        Ok(())
    });
    if context.global.wants_json() {
        context.out.json(&documents);
    }
    result
}

fn rm(context: &Context, args: &Remove) -> Result {
    let client = Client::open(&context.global)?;
    let result = context.removing(&args.images, |text| {
        let name = match client.resolve(text, "remove image") {
            Err(problem) if args.ignore && problem.kind == ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            name => name?,
        };
        let removed = client.remove_image(&name, args.force)?;
        let dirs: Vec<String> = removed.iter().map(|dir| quote(dir)).collect();
        let note = match dirs.as_slice() {
            [] => String::new(),
            [dir] => format!(" (bundle {dir} keeps its files)"),
            dirs => format!(" (bundles {} keep their files)", dirs.join(", ")),
        };
        let name = name.to_string();
        Ok(vec![Gone { name, note }])
    });
    if args.sync {
        client.gc(false)?;
    }
    result
}

fn mount(context: &Context, args: &MountImage) -> Result {
    args.foreign.checked()?;
    let client = Client::open(&context.global)?;
    let name = client.resolve(&args.image, "mount image")?;
    let target = match &args.target {
        Some(target) => target.clone(),
        None => fresh_target(&name),
    };
    let progress = context.progress("unpack", Some(name.as_str()))?;
    let options = MountOptions {
        rw: args.rw,
        platform: args.platform.clone(),
        life: args.expiration.filter(|life| !life.is_zero()),
    };
    let mounted = client.mount_image(&name, &target, options, &progress)?;
    drop(progress);
    let mounted = mounted.display().to_string();
    if context.global.wants_json() {
        context
            .out
            .json(&serde_json::json!({"image": name.as_str(), "target": mounted}));
    } else {
        // Alone on standard output, so that `cd $(cairn mount busybox)` works.
        context.out.line(mounted);
    }
    Ok(())
}

/// A directory that is not there yet, named after the image.
fn fresh_target(name: &ImageName) -> PathBuf {
    let word: String = name
        .familiar()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let base = Path::new(MOUNTS);
    let candidates = (1..).map(|n| {
        base.join(if n == 1 {
            word.clone()
        } else {
            format!("{word}-{n}")
        })
    });
    candidates
        .into_iter()
        .find(|path| !path.exists())
        .unwrap_or_else(|| base.join(&word))
}

fn unmount(context: &Context, args: &Unmount) -> Result {
    Client::open(&context.global)?.unmount_image(&args.target, args.rm)?;
    Ok(())
}

fn usage(context: &Context, args: &Usage) -> Result {
    let client = Client::open(&context.global)?;
    let name = client.resolve(&args.image, "measure image")?;
    let rows = client.inspect(&name, None)?.usage;
    context.usage(&rows, true, args.bytes);
    Ok(())
}
