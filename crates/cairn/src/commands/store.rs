//! Verbs without a group: what the store is, what it takes, what can go.

use cairn_types::Algorithm;

use super::{Context, Result, fsck::say_next};
use crate::{
    args::DfArgs,
    client::Client,
    error::{pointed, pointed_at_store, quote},
    model::{Disk, Holder, Program, Scrub, Server, Time, Versions},
    size,
    table::Table,
    view,
};

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `df`
pub fn df(context: &Context, args: DfArgs) -> Result {
    let client = Client::open(&context.global)?;
    if args.disk {
        return disk(context, &client.disk()?);
    }
    let rows = client.df(args.wide)?;
    context.list(&view::df(&rows), &rows);
    if context.global.wants_json() {
        return Ok(());
    }
    let images = rows.iter().find_map(|row| row.images.as_ref());
    let namespaces = rows.iter().find_map(|row| row.namespaces.as_ref());
    if let Some(images) = images {
        below(context, &view::df_images(images));
    }
    if let Some(namespaces) = namespaces {
        below(context, &view::df_namespaces(namespaces));
    }
    Ok(())
}

/// One more table, whose columns have nothing to do with those before.
fn below(context: &Context, table: &Table) {
    let text = table.render(context.out.stdout, context.global.no_trunc);
    context.out.text(&format!("\n{text}"));
}

/// `df --disk`
fn disk(context: &Context, disk: &Disk) -> Result {
    context.list(&view::disk(disk), disk);
    if disk.unexplained.is_empty() || context.global.wants_json() {
        return Ok(());
    }
    below(context, &view::unexplained(&disk.unexplained));
    if context.out.quiet {
        return Ok(());
    }
    match disk.unexplained.iter().any(|one| is_checked(&one.path)) {
        // Of one namespace alone it would not look for what is nobody's.
        true => say_next(context, &[pointed_at_store("cairn fsck", &context.global)]),
        false => context
            .out
            .note("nothing here has made these or will remove them"),
    }
    Ok(())
}

/// Whether a path of the store's is where `fsck` finds, and removes, what no record speaks of.
fn is_checked(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["content", "blobs", algorithm, _] => Algorithm::ALL
            .iter()
            .any(|known| known.name() == *algorithm),
        ["snapshots", name] => *name != "trash",
        _ => false,
    }
}

/// `why`
pub fn why(context: &Context, object: &str) -> Result {
    let mut objects = Client::open(&context.global)?.why(object)?;
    for kept in &mut objects {
        for holder in &mut kept.held_by {
            let command = lets_go(holder);
            holder.frees = command.map(|command| pointed(&command, &context.global));
        }
    }
    if context.global.wants_json() {
        context.out.json(&objects);
        return Ok(());
    }
    for (number, kept) in objects.iter().enumerate() {
        let gap = if number == 0 { "" } else { "\n" };
        let (kind, name, size) = (&kept.kind, quote(&kept.name), size::bytes(kept.size));
        let what = match kept.kind.as_str() {
            "image" => format!("{gap}{kind} {name}"),
            _ => format!("{gap}{kind} {name}, {size}"),
        };
        if kept.held_by.is_empty() {
            let gc = pointed("cairn gc", &context.global);
            context
                .out
                .line(format!("{what}: nothing keeps it, {gc} removes it"));
            continue;
        }
        let table = view::kept(kept);
        let text = table.render(context.out.stdout, context.global.no_trunc);
        context.out.text(&format!("{what}\n{text}"));
    }
    Ok(())
}

/// The command by which `holder` lets go; what calls and others' programs hold is theirs to
/// let go of.
fn lets_go(holder: &Holder) -> Option<String> {
    let name = quote(&holder.name);
    let command = match (holder.kind.as_str(), &holder.label) {
        ("image", _) => format!("cairn images rm {name}"),
        ("bundle", _) => format!("cairn bundle rm {name}"),
        ("lease", _) => format!("cairn leases rm {name}"),
        ("ingest", _) => format!("cairn content abort {name}"),
        // As a lease calls one.
        ("blob" | "content", Some(label)) => {
            format!("cairn content label {name} {}=", quote(label))
        }
        ("snapshot", Some(label)) => format!("cairn snapshots label {name} {}=", quote(label)),
        _ => return None,
    };
    Some(command)
}

/// `gc`
pub fn gc(context: &Context, dry_run: bool) -> Result {
    let done = Client::open(&context.global)?.gc(dry_run)?;
    if context.out.quiet && !context.global.wants_json() {
        return Ok(());
    }
    context.list(&view::gc(&done), &done);
    Ok(())
}

/// `version` needs no store: it must answer when the store does not open.
pub fn version(context: &Context) -> Result {
    let server = Client::server_of(&context.global)?;
    let platform = cairn_types::Platform::host();
    if context.global.wants_json() {
        let client = Program {
            version: VERSION.to_owned(),
            platform: platform.to_string(),
        };
        context.out.json(&Versions { client, server });
        return Ok(());
    }
    context
        .out
        .line(format!("client  cairn {VERSION} ({platform})"));
    let (api, layout) = (&server.api, server.layout);
    context.out.line(format!(
        "server  {}, API {api}, store layout {layout}",
        place(&server)
    ));
    Ok(())
}

/// The two words that tell a daemon from a server inside this process.
fn place(server: &Server) -> String {
    match &server.address {
        Some(socket) => format!("cairnd {} at {}", server.version, quote(socket)),
        None => format!("inside this process, root {}", quote(&server.root)),
    }
}

/// `info`
pub fn info(context: &Context) -> Result {
    let client = Client::open(&context.global)?;
    let info = client.info()?;
    if context.global.wants_json() {
        context.out.json(&info);
        return Ok(());
    }
    let server = &info.server;
    let served = match &server.address {
        Some(_) => format!("{}, root {}", place(server), quote(&server.root)),
        None => format!("{}, cairn {}", place(server), server.version),
    };
    let state = match &info.read_only {
        Some(reason) => format!("read-only: {reason}"),
        None => "ready".to_owned(),
    };
    let (free, all) = (size::bytes(info.free_bytes), size::bytes(info.total_bytes));
    let mut rows = vec![
        ("server", served),
        ("state", state),
        (
            "started",
            format!("{}, pid {}", size::time(info.started_at.0), info.pid),
        ),
        (
            "store",
            format!("{}, layout {}, {}", info.engine, server.layout, info.uuid),
        ),
        ("disk", format!("{free} of {all} free")),
        (
            "scrub",
            info.scrub.as_ref().map_or_else(|| "-".to_owned(), scrub),
        ),
    ];
    if let Some(rebuilt) = &info.rebuilt {
        rows.push(("records", rebuilt.clone()));
    }
    let namespaces = match info.namespaces.is_empty() {
        true => "-".to_owned(),
        false => info.namespaces.join(", "),
    };
    rows.push(("namespaces", namespaces));
    for row in &info.usage {
        rows.push((
            &row.kind,
            format!("{}, {}", row.total, size::bytes(row.size)),
        ));
    }
    context.out.text(&view::pairs(&rows));
    Ok(())
}

/// How far it is, and what it found. Who serves the store makes no difference.
fn scrub(scrub: &Scrub) -> String {
    let mut parts = Vec::new();
    let (done, total) = (size::bytes(scrub.done), size::bytes(scrub.total));
    match (scrub.running, scrub.began_at) {
        (true, _) => parts.push(format!("at work, {done} of {total} read")),
        (false, Some(_)) => parts.push(format!("to go on, {done} of {total} read")),
        (false, None) => {}
    }
    if let Some(Time(at)) = scrub.ended_at {
        parts.push(format!("last ended {}", size::time(at)));
    }
    match (scrub.findings.len(), parts.is_empty()) {
        (0, true) => parts.push("not yet".to_owned()),
        (0, false) => parts.push("no damage".to_owned()),
        (1, _) => parts.push("1 damaged place: cairn fsck".to_owned()),
        (count, _) => parts.push(format!("{count} damaged places: cairn fsck")),
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_advised_where_it_finds_something() {
        for (path, checked) in [
            ("content/blobs/sha256/abc", true),
            ("content/blobs/notes", false),
            ("content/blobs/md5/abc", false),
            ("content/notes", false),
            ("snapshots/12", true),
            ("snapshots/notes", true),
            ("notes", false),
            ("meta/notes", false),
        ] {
            assert_eq!(is_checked(path), checked, "{path}");
        }
    }

    #[test]
    fn a_label_is_taken_off_whatever_a_blob_is_called() {
        for kind in ["blob", "content"] {
            let holder = Holder {
                kind: kind.to_owned(),
                name: "sha256:abc".to_owned(),
                label: Some("containerd.io/gc.root".to_owned()),
                through: Vec::new(),
                frees: None,
            };
            let command = "cairn content label sha256:abc containerd.io/gc.root=";
            assert_eq!(lets_go(&holder).as_deref(), Some(command));
        }
    }
}
