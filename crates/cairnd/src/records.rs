//! `cairnd meta`: the records of a store that no daemon has open, as a file and back.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use cairn_node::{
    Exported, Failure, RecordsImport, RecordsImported, export_records, import_records,
};

use crate::{config::Config, options::MetaVerb};

/// Does it; answers what to print.
pub fn run(config: &Config, engine_flag: bool, verb: &MetaVerb) -> Result<String, String> {
    match verb {
        MetaVerb::Export { file } => export(&config.root, file.as_deref()),
        MetaVerb::Import {
            file,
            replace,
            layout,
        } => {
            let wanted = RecordsImport {
                engine: config.metadata.engine.into(),
                layout: *layout,
                replace: *replace,
            };
            let imported = import(&config.root, wanted, file)?;
            let mut text = told(&config.root, &imported);
            if engine_flag {
                let engine = wanted.engine.name();
                text.push_str(&format!(
                    "they are kept by {engine} now: [metadata] engine = \"{engine}\" in the configuration\n"
                ));
            }
            Ok(text)
        }
    }
}

fn export(root: &Path, file: Option<&Path>) -> Result<String, String> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let mut out = BufWriter::new(io::stdout().lock());
        let exported = export_records(root, &mut out).map_err(explained)?;
        warn(&exported);
        return Ok(String::new());
    };
    // Labels and clients' documents may hold secrets.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = made.map_err(|err| format!("cannot write {}: {err}", path.display()))?;
    match write(root, file) {
        Ok(exported) => {
            warn(&exported);
            let count = exported.records;
            Ok(format!("exported {count} records to {}\n", path.display()))
        }
        Err(reason) => {
            // It is no export, and a second try shall find its way free.
            let _ = std::fs::remove_file(path);
            Err(reason)
        }
    }
}

fn write(root: &Path, file: File) -> Result<Exported, String> {
    let mut out = BufWriter::new(file);
    let exported = export_records(root, &mut out).map_err(explained)?;
    // What stands in for the records must not be lost with the power.
    let synced = out.get_ref().sync_all();
    synced.map_err(|err| format!("cannot write the export: {err}"))?;
    Ok(exported)
}

/// Standard output may be the export itself.
fn warn(exported: &Exported) {
    for damage in &exported.damaged {
        let _ = writeln!(io::stderr(), "warning: {damage}; it is exported as it is");
    }
}

fn import(root: &Path, wanted: RecordsImport, file: &Path) -> Result<RecordsImported, String> {
    if file == Path::new("-") {
        let mut input = BufReader::new(io::stdin().lock());
        return import_records(root, wanted, &mut input).map_err(explained);
    }
    let opened = File::open(file);
    let opened = opened.map_err(|err| format!("cannot read {}: {err}", file.display()))?;
    import_records(root, wanted, &mut BufReader::new(opened)).map_err(explained)
}

fn told(root: &Path, imported: &RecordsImported) -> String {
    let mut text = format!(
        "imported {} records into {}\n",
        imported.replaced.records,
        root.display()
    );
    if let Some(backup) = &imported.replaced.backup {
        let kept = root.join("meta").join(backup);
        text.push_str(&format!("those before are kept in {}\n", kept.display()));
    }
    if let (Some(ours), Some(theirs)) = (&imported.other, &imported.origin.uuid) {
        text.push_str(&format!(
            "they are those of the store {theirs}, and this is {ours}: what is not beside them is missing\n"
        ));
    }
    text
}

/// A failure as a person reads it, with what leads on.
fn explained(failure: Failure) -> String {
    let mut text = failure.to_string();
    for cause in &failure.causes {
        text.push_str(&format!("\n  cause: {cause}"));
    }
    for step in &failure.next {
        text.push_str(&format!("\n  next:  {step}"));
    }
    text
}
