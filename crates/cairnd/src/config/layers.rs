//! Where values come from: defaults, files, the environment, flags; the later wins. Each value keeps
//! its source, so that `cairnd config dump` and every complaint can name it.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Table, Value, de::DeTable};

use super::{Config, DEFAULT};

/// How alike two names must be for one to be meant by the other, as `strsim::jaro` has it.
const ALIKE: f64 = 0.7;

/// What is wrong, where, and what to do.
#[derive(Debug)]
pub struct ConfigError {
    /// A file, or empty for what did not come from one.
    pub file: String,
    /// In lower case, without a full stop.
    pub reason: String,
    /// File, line and column, or a variable, or a flag.
    pub place: Option<String>,
    /// What to do.
    pub next: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.file {
            "" => write!(f, "cannot read the configuration: {}", self.reason)?,
            file => write!(f, "cannot read {file}: {}", self.reason)?,
        }
        if let Some(place) = &self.place {
            write!(f, "\n  where: {place}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next:  {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A value from outside the files.
#[derive(Clone, Debug)]
pub struct Override {
    /// Table and key, with a dot between.
    pub key: &'static str,
    /// The flag or variable.
    pub name: String,
    /// As it was written there; strings need no quotes.
    pub value: String,
}

#[derive(Clone, Debug)]
enum Source {
    Default,
    File { file: PathBuf, at: (usize, usize) },
    Named(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File {
                file,
                at: (line, column),
            } => {
                write!(f, "{}:{line}:{column}", file.display())
            }
            Source::Named(name) => f.write_str(name),
        }
    }
}

/// Every key with its value and where that comes from.
#[derive(Clone, Debug)]
pub struct Layers {
    /// By table (empty for none, dotted for one in another) and key.
    values: BTreeMap<(String, String), (Value, Source)>,
}

impl Default for Layers {
    fn default() -> Layers {
        let table: Table = toml::from_str(DEFAULT).expect("the built-in defaults are well-formed");
        let mut values = BTreeMap::new();
        let mut tables = vec![(String::new(), table)];
        while let Some((table, keys)) = tables.pop() {
            for (key, value) in keys {
                match value {
                    Value::Table(keys) => tables.push((dotted(&table, &key), keys)),
                    value => {
                        values.insert((table.clone(), key), (value, Source::Default));
                    }
                }
            }
        }
        Layers { values }
    }
}

impl Layers {
    /// The defaults, then `file`, then what lies beside it in `conf.d`. A file that was not asked for
    /// by name (`must_exist`) may be absent.
    pub fn read(file: &Path, must_exist: bool) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        match fs::read_to_string(file) {
            Ok(text) => layers.add(file, &text)?,
            Err(err) if err.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Err(err) => return Err(unreadable(file, &err)),
        }
        for file in beside(file)? {
            let text = fs::read_to_string(&file).map_err(|err| unreadable(&file, &err))?;
            layers.add(&file, &text)?;
        }
        Ok(layers)
    }

    /// Puts the values of a file over those that are there.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let wrong = |at: Option<usize>, reason: String, next: Option<String>| ConfigError {
            file: file.display().to_string(),
            reason,
            place: at.map(|at| {
                let (line, column) = position(text, at);
                format!("{}:{line}:{column}", file.display())
            }),
            next,
        };
        let malformed = |err: &toml::de::Error| {
            let reason = err.message().lines().next().unwrap_or_default().to_owned();
            wrong(err.span().map(|span| span.start), reason, None)
        };
        let spanned = DeTable::parse(text).map_err(|err| malformed(&err))?;
        let plain: Table = toml::from_str(text).map_err(|err| malformed(&err))?;
        self.add_table("", spanned.get_ref(), &plain, file, text)
            .map_err(|(at, reason, next)| wrong(Some(at), reason, next))
    }

    /// Those of one table, and of the tables in it. An error has its place in `text` first.
    fn add_table(
        &mut self,
        table: &str,
        spanned: &DeTable<'_>,
        plain: &Table,
        file: &Path,
        text: &str,
    ) -> Result<(), (usize, String, Option<String>)> {
        for (name, value) in spanned {
            let (at, key) = (name.span().start, &**name.get_ref());
            let inner = dotted(table, key);
            match (value.get_ref().as_table(), &plain[key]) {
                (Some(keys), Value::Table(values)) if self.has_table(&inner) => {
                    self.add_table(&inner, keys, values, file, text)?;
                }
                (Some(_), _) => {
                    let tables = self.values.keys().map(|(known, _)| known.as_str());
                    let next = meant(&inner, tables.filter(|known| !known.is_empty()));
                    return Err((at, format!("unknown table {inner:?}"), Some(next)));
                }
                (None, value) => self
                    .put(table, key, value, file, position(text, at))
                    .map_err(|(reason, next)| (at, reason, next))?,
            }
        }
        Ok(())
    }

    fn has_table(&self, name: &str) -> bool {
        let within = |known: &str| known.strip_prefix(name)?.starts_with('.').then_some(());
        let mut tables = self.values.keys().map(|(known, _)| known.as_str());
        tables.any(|known| !known.is_empty() && (known == name || within(known).is_some()))
    }

    fn put(
        &mut self,
        table: &str,
        key: &str,
        value: &Value,
        file: &Path,
        at: (usize, usize),
    ) -> Result<(), (String, Option<String>)> {
        let place = (table.to_owned(), key.to_owned());
        let Some((before, _)) = self.values.get(&place) else {
            let names = self.values.keys().filter(|(known, _)| known == table);
            let next = meant(key, names.map(|(_, name)| name.as_str()));
            return Err((format!("unknown key {:?}", dotted(table, key)), Some(next)));
        };
        let value = match (before, value) {
            // "0" is a fraction, too.
            #[allow(clippy::cast_precision_loss, reason = "so large a fraction is refused")]
            (Value::Float(_), Value::Integer(whole)) => Value::Float(*whole as f64),
            (before, value) if before.same_type(value) => value.clone(),
            (before, value) => {
                let (key, wanted) = (dotted(table, key), before.type_str());
                let reason = format!("{key} wants {}, not {}", article(wanted), value.type_str());
                return Err((reason, None));
            }
        };
        let source = Source::File {
            file: file.to_owned(),
            at,
        };
        self.values.insert(place, (value, source));
        Ok(())
    }

    /// Puts a value from outside the files over what is there.
    pub fn set(&mut self, from: Override) -> Result<(), ConfigError> {
        let (table, key) = from.key.rsplit_once('.').unwrap_or(("", from.key));
        let place = (table.to_owned(), key.to_owned());
        let (before, _) = self
            .values
            .get(&place)
            .expect("overrides are of known keys");
        let value = if before.is_str() {
            Value::String(from.value)
        } else {
            let parsed = toml::from_str::<Table>(&format!("value = {}", from.value));
            let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
            match (before, parsed) {
                #[allow(clippy::cast_precision_loss, reason = "so large a fraction is refused")]
                (Value::Float(_), Some(Value::Integer(whole))) => Value::Float(whole as f64),
                (before, Some(value)) if before.same_type(&value) => value,
                (before, _) => {
                    let wanted = article(before.type_str());
                    return Err(ConfigError {
                        file: String::new(),
                        reason: format!("{} wants {wanted}, not {:?}", from.key, from.value),
                        place: Some(from.name),
                        next: None,
                    });
                }
            }
        };
        self.values.insert(place, (value, Source::Named(from.name)));
        Ok(())
    }

    /// What all of them come to.
    pub fn config(&self) -> Result<Config, ConfigError> {
        // One value at a time over the defaults, so that what is wrong is known by its place.
        let whole = |only: Option<&(String, String)>| {
            let mut root = Table::new();
            let defaults = Layers::default();
            for (place, (value, _)) in &self.values {
                let value = match only {
                    Some(only) if only != place => &defaults.values[place].0,
                    _ => value,
                };
                let (table, key) = place;
                let mut into = &mut root;
                for part in table.split('.').filter(|part| !part.is_empty()) {
                    into = into
                        .entry(part)
                        .or_insert_with(|| Value::Table(Table::new()))
                        .as_table_mut()
                        .expect("tables hold tables");
                }
                into.insert(key.clone(), value.clone());
            }
            Config::deserialize(Value::Table(root))
        };
        let all = whole(None);
        all.map_err(|err| {
            let guilty = self.values.keys().find_map(|place| {
                let err = whole(Some(place)).err()?;
                Some((place, err))
            });
            let (file, place, reason) = match guilty {
                Some((place, err)) => {
                    let source = &self.values[place].1;
                    let file = match source {
                        Source::File { file, .. } => file.display().to_string(),
                        _ => String::new(),
                    };
                    let reason = format!("{}: {}", dotted(&place.0, &place.1), err.message());
                    (file, Some(source.to_string()), reason)
                }
                None => (String::new(), None, err.message().to_owned()),
            };
            ConfigError {
                file,
                reason,
                place,
                next: None,
            }
        })
    }

    /// Every key with its value, and the value's source as a comment.
    pub fn dump(&self) -> String {
        let mut lines = Vec::new();
        let mut inside = "";
        for ((table, key), (value, source)) in &self.values {
            if table != inside {
                inside = table;
                lines.push((format!("\n[{table}]"), String::new()));
            }
            let value = match (&**key, value) {
                ("mode", Value::Integer(mode)) => format!("0o{mode:o}"),
                (_, value) => value.to_string(),
            };
            lines.push((format!("{key} = {value}"), source.to_string()));
        }
        let width = lines
            .iter()
            .map(|(line, _)| line.len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for (line, source) in lines {
            match &*source {
                "" => text.push_str(&line),
                source => text.push_str(&format!("{line:width$}  # {source}")),
            }
            text.push('\n');
        }
        text
    }
}

/// The values among `variables` that are ours.
pub fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Override>, ConfigError> {
    let known: BTreeMap<String, &'static str> = keys()
        .into_iter()
        .map(|key| {
            (
                format!("CAIRN_{}", key.to_uppercase().replace('.', "__")),
                key,
            )
        })
        .collect();
    let mut found = Vec::new();
    for (name, value) in variables {
        match known.get(&name) {
            Some(key) => found.push(Override { key, name, value }),
            // Other names that begin like ours belong to the command line and to tests.
            None if name.starts_with("CAIRN_") && name[6..].contains("__") => {
                return Err(ConfigError {
                    file: String::new(),
                    reason: format!("unknown key {name:?}"),
                    next: Some(meant(&name, known.keys().map(String::as_str))),
                    place: Some("the environment".to_owned()),
                });
            }
            None => {}
        }
    }
    Ok(found)
}

/// All keys, dotted.
fn keys() -> Vec<&'static str> {
    static KEYS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let known = Layers::default();
        known
            .values
            .keys()
            .map(|(table, key)| dotted(table, key))
            .collect()
    });
    keys.iter().map(String::as_str).collect()
}

fn dotted(table: &str, key: &str) -> String {
    match table {
        "" => key.to_owned(),
        table => format!("{table}.{key}"),
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn meant<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let all = "all keys: cairnd config default";
    let nearest = known
        .map(|known| (strsim::jaro(known, name), known))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, known)) => format!("did you mean {known}? {all}"),
        None => all.to_owned(),
    }
}

/// Line and column, from one, in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

/// The files of `conf.d`, by name.
fn beside(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = file
        .parent()
        .unwrap_or_else(|| Path::new("."))
        .join("conf.d");
    let mut files = Vec::new();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|err| unreadable(&dir, &err))?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                {
                    files.push(path);
                }
            }
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(unreadable(&dir, &err)),
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, err: &io::Error) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        reason: err.to_string(),
        place: None,
        next: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str) -> Result<Layers, String> {
        let mut layers = Layers::default();
        layers
            .add(Path::new("/c.toml"), text)
            .map_err(|err| err.to_string())?;
        Ok(layers)
    }

    #[test]
    fn complaints_name_the_place() {
        for (text, reason, at, next) in [
            (
                "\n[grpc]\nadress = 1",
                "unknown key \"grpc.adress\"",
                "3:1",
                "address?",
            ),
            ("  sate = \"/x\"", "unknown key \"sate\"", "1:3", "state?"),
            ("[grcp]\n", "unknown table \"grcp\"", "1:2", "grpc?"),
            (
                "[log]\nlevel = 3",
                "log.level wants a string, not integer",
                "2:1",
                "",
            ),
            ("log = 3", "unknown key \"log\"", "1:1", "all keys"),
            ("[root]\n", "unknown table \"root\"", "1:2", "all keys"),
            ("version = 1\nversion = 1", "duplicate key", "2:1", ""),
            ("version = ", "", "1:1", ""),
        ] {
            let err = added(text).expect_err(text);
            assert!(err.contains(reason), "{err}");
            assert!(err.contains(&format!("where: /c.toml:{at}")), "{err}");
            assert!(err.contains(next), "{err}");
        }
    }

    #[test]
    fn the_later_wins_and_is_named() {
        let mut layers = added("[gc]\nschedule_delay = \"1s\"\nstartup_delay = \"1s\"").unwrap();
        let variables = [("CAIRN_GC__STARTUP_DELAY", "2s"), ("CAIRN_FAULT", "x")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        for from in environment(variables).unwrap() {
            layers.set(from).unwrap();
        }
        let dump = layers.dump();
        let line = |key: &str| dump.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(
            line("schedule_delay = \"1s\"").ends_with("# /c.toml:2:1"),
            "{dump}"
        );
        assert!(line("startup_delay = \"2s\"").ends_with("# CAIRN_GC__STARTUP_DELAY"));
        assert!(line("mode = 0o600").ends_with("# default"), "{dump}");
        // What was dumped can be read again.
        assert_eq!(
            added(&dump).unwrap().config().unwrap(),
            layers.config().unwrap()
        );
    }

    #[test]
    fn unknown_variables() {
        let variable = ("CAIRN_GRPC__ADRESS".to_owned(), "x".to_owned());
        let err = environment([variable]).unwrap_err().to_string();
        assert!(err.contains("did you mean CAIRN_GRPC__ADDRESS?"), "{err}");
    }
}
