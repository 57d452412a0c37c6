//! `cairn images …`.

use std::{path::PathBuf, time::Duration};

use cairn_types::Platform;
use clap::{ArgAction, Args, Subcommand};

use super::{
    Platforms, PodmanPlatform, Pull, Push, Rest, examples,
    labels::{LabelImage, label},
};
use crate::size;

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, before_help = examples::IMAGES)]
pub struct ImagesArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<ImagesVerb>,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum ImagesVerb {
    /// Fetch an image of a registry
    #[command(before_help = examples::PULL)]
    Pull(Pull),
    /// Send an image to a registry
    #[command(before_help = examples::PUSH)]
    Push(Push),
    /// Take in an OCI or docker archive, or an OCI layout directory
    #[command(alias = "load", before_help = examples::IMPORT)]
    Import(Import),
    /// Write images to an archive that OCI and docker tools read
    #[command(alias = "save", before_help = examples::EXPORT)]
    Export(Export),
    /// List images
    #[command(visible_alias = "list", before_help = examples::LS)]
    Ls(List),
    /// Show what an image is made of
    #[command(aliases = ["i", "history"], before_help = examples::INSPECT)]
    Inspect(Inspect),
    /// Give an image more names
    #[command(before_help = examples::TAG)]
    Tag(Tag),
    /// Remove names; `cairn gc` frees the space
    #[command(visible_alias = "remove", aliases = ["del", "delete"], before_help = examples::RM)]
    Rm(Remove),
    /// Change an image's labels
    #[command(before_help = examples::LABEL)]
    Label(LabelImage),
    /// Mount an image's files and print where
    #[command(before_help = examples::MOUNT)]
    Mount(MountImage),
    /// Undo `mount`
    #[command(alias = "umount", before_help = examples::UNMOUNT)]
    Unmount(Unmount),
    /// Disk use of each unpacked layer
    #[command(before_help = examples::USAGE)]
    Usage(Usage),
    /// Tell which images are complete
    #[command(before_help = examples::CHECK)]
    Check(CheckImages),
    /// Rewrites nothing
    #[command(hide = true)]
    Convert(Rest),
}

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    /// Archive, layout directory, or - for standard input [default: -]
    #[arg(value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// docker's spelling of the argument
    #[arg(short, long, hide = true, value_name = "FILE", conflicts_with = "file")]
    pub input: Option<PathBuf>,
    /// Keep names under this one, put bare tags behind it
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Name the archive's whole index
    #[arg(long, value_name = "NAME")]
    pub index_name: Option<String>,
    /// Name every manifest by its digest, too
    #[arg(long)]
    pub digests: bool,
    /// Which variants
    #[command(flatten)]
    pub platforms: Platforms,
    /// Leave the layers packed
    #[arg(long)]
    pub no_unpack: bool,
    /// Keep no packed layer: takes less room, and cannot be exported or pushed
    #[arg(long, conflicts_with = "no_unpack")]
    pub discard_unpacked_layers: bool,
    /// Store plain layers as gzip, under a manifest that says so: another digest
    #[arg(long)]
    pub compress_blobs: bool,
    /// Label the images
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// ctr's: with --digests, only what the archive has no name for
    #[arg(long, hide = true)]
    pub skip_digest_for_named: bool,
    /// Wait until the unpacked layers are on the disk; without it a power cut may have them unpacked again
    #[arg(long, hide_short_help = true)]
    pub sync_fs: bool,
    /// ctr's
    #[command(flatten)]
    pub local: Local,
    /// ctr's
    #[command(flatten)]
    pub snapshotter: Snapshotter,
}

impl Import {
    /// The archive, by whichever spelling it came.
    pub fn source(&self) -> Option<&PathBuf> {
        self.file.as_ref().or(self.input.as_ref())
    }
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// File to write (- for standard output), then the images
    #[arg(value_name = "OUT|- REF", required = true)]
    pub words: Vec<String>,
    /// docker's spelling of OUT; then every argument is an image
    #[arg(short, long, hide = true, value_name = "FILE")]
    pub output: Option<String>,
    /// Which variants
    #[command(flatten)]
    pub platforms: Platforms,
    /// Leave out docker's manifest.json
    #[arg(long)]
    pub skip_manifest_json: bool,
    /// Leave out foreign layers
    #[arg(long)]
    pub skip_non_distributable: bool,
    /// Not the images, but what is said about them: provenance, bills of materials
    #[arg(long)]
    pub only_attestations: bool,
    /// ctr's
    #[command(flatten)]
    pub local: Local,
}

/// `ls`
#[derive(Debug, Default, Args)]
pub struct List {
    /// Which, in which order
    #[command(flatten)]
    pub check: Check,
    /// Also type and labels
    #[arg(long)]
    pub wide: bool,
    /// docker's; digests are always shown
    #[arg(long, hide = true)]
    pub digests: bool,
}

/// The part that `ls` and `check` have in common
#[derive(Debug, Default, Args)]
pub struct Check {
    /// Only these: a name, or name==X, name~=REGEXP, labels.KEY==X
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// docker's spelling of the argument
    #[arg(short, long, hide = true, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// name, size or added; :desc reverses
    #[arg(long, value_name = "KEY", default_value = "name", value_parser = sort_key)]
    pub sort: Sort,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckImages {
    /// Which, in which order
    #[command(flatten)]
    pub check: Check,
    /// ctr's
    #[command(flatten)]
    pub snapshotter: Snapshotter,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// Name or digest
    #[arg(value_name = "REF")]
    pub image: String,
    /// This variant's manifest and configuration
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = |t: &str| t.parse::<Platform>())]
    pub platform: Option<Platform>,
    /// podman's way to say it
    #[command(flatten)]
    pub foreign: PodmanPlatform,
    /// The manifest's bytes
    #[arg(long)]
    pub raw: bool,
    /// The configuration's bytes
    #[arg(long, conflicts_with = "raw")]
    pub config: bool,
    /// Also the text of each document
    #[arg(long, conflicts_with_all = ["raw", "config"])]
    pub content: bool,
    /// Instead, what the time of unpacking each layer went into
    #[arg(long, conflicts_with_all = ["raw", "config", "content"])]
    pub timing: bool,
}

/// `tag`
#[derive(Debug, Args)]
pub struct Tag {
    /// Which image
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Its new names
    #[arg(value_name = "DST", required = true)]
    pub targets: Vec<String>,
    /// Move names that mean another image
    #[arg(long)]
    pub force: bool,
    /// Take the new names as they are
    #[arg(long)]
    pub skip_reference_check: bool,
    /// ctr's
    #[command(flatten)]
    pub local: Local,
}

/// `rm`
#[derive(Debug, Args)]
pub struct Remove {
    /// Names or digests
    #[arg(value_name = "REF", required = true)]
    pub images: Vec<String>,
    /// Also when a bundle was made from it
    #[arg(short, long)]
    pub force: bool,
    /// podman's: an absent image is no failure
    #[arg(short, long, hide = true)]
    pub ignore: bool,
    /// Free the space before returning
    #[arg(long)]
    pub sync: bool,
}

/// `mount`
#[derive(Debug, Args)]
pub struct MountImage {
    /// Name or digest
    #[arg(value_name = "REF")]
    pub image: String,
    /// Where [default: a new directory below /run/cairn/mounts]
    #[arg(value_name = "TARGET")]
    pub target: Option<PathBuf>,
    /// Writable
    #[arg(long)]
    pub rw: bool,
    /// Which variant
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = |t: &str| t.parse::<Platform>())]
    pub platform: Option<Platform>,
    /// podman's way to say it
    #[command(flatten)]
    pub foreign: PodmanPlatform,
    /// Let `cairn gc` have it after this long, mounted or not [default: when it is unmounted]
    #[arg(short = 'x', long, value_name = "D", value_parser = size::parse_duration)]
    pub expiration: Option<Duration>,
    /// ctr's
    #[command(flatten)]
    pub snapshotter: Snapshotter,
}

/// `unmount`
#[derive(Debug, Args)]
pub struct Unmount {
    /// As `mount` printed it
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
    /// Also drop what was changed in it
    #[arg(long)]
    pub rm: bool,
}

/// `usage`
#[derive(Debug, Args)]
pub struct Usage {
    /// Name or digest
    #[arg(value_name = "REF")]
    pub image: String,
    /// Exact bytes
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub bytes: bool,
    /// ctr's
    #[command(flatten)]
    pub snapshotter: Snapshotter,
}

/// ctr's `--snapshotter`; there is only one.
#[derive(Debug, Default, Args)]
pub struct Snapshotter {
    /// Its name
    #[arg(long, hide = true, env = "CONTAINERD_SNAPSHOTTER", hide_env = true,
          value_name = "NAME", value_parser = ["overlayfs"])]
    pub snapshotter: Option<String>,
}

/// ctr's `--local`: the client does the work, not the daemon. Here `--root` says who does.
#[derive(Debug, Default, Args)]
pub struct Local {
    /// No effect
    #[arg(long, hide = true)]
    pub local: bool,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: SortBy,
    /// `:desc`.
    pub descending: bool,
}

/// What a list can be ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// Bytewise.
    #[default]
    Name,
    /// Smallest first.
    Size,
    /// Oldest first.
    Added,
}

fn sort_key(text: &str) -> Result<Sort, String> {
    let (key, descending) = match text.split_once(':') {
        None => (text, false),
        Some((key, "desc")) => (key, true),
        Some((key, "asc")) => (key, false),
        Some(_) => return Err("only :desc may follow the key".to_owned()),
    };
    let by = match key {
        "name" => SortBy::Name,
        "size" => SortBy::Size,
        "added" => SortBy::Added,
        _ => return Err("name, size or added".to_owned()),
    };
    Ok(Sort { by, descending })
}
