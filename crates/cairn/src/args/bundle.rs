//! `cairn bundle …`.

use std::path::PathBuf;

use cairn_types::Platform;
use clap::{Args, Subcommand};

/// The group; without a verb it lists.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<BundleVerb>,
}

/// What to do with bundles.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum BundleVerb {
    /// Make a directory that runc can run
    Create(BundleCreate),
    /// Unmount bundles and delete them
    #[command(visible_alias = "remove", aliases = ["del", "delete"])]
    Rm(BundleRm),
    /// List bundles
    #[command(visible_alias = "list")]
    Ls,
}

/// `create`
#[derive(Debug, Args)]
pub struct BundleCreate {
    /// Name or digest
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Empty or absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Which variant
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = |t: &str| t.parse::<Platform>())]
    pub platform: Option<Platform>,
    /// Set a variable, may be repeated
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// User, as in the image's configuration
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// The root is read-only
    #[arg(long)]
    pub read_only: bool,
    /// Command and arguments instead of the image's
    #[arg(long, value_name = "WORD", num_args = 1.., allow_hyphen_values = true)]
    pub cmd: Vec<String>,
}

/// `rm`
#[derive(Debug, Args)]
pub struct BundleRm {
    /// As they were created
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}
