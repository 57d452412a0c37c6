//! `cairn leases …` and `cairn namespaces …`.

use std::time::Duration;

use cairn_types::{LeaseId, Namespace};
use clap::{Args, Subcommand};

use super::{
    examples,
    labels::{LabelArgs, label},
};
use crate::size;

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(before_help = examples::LEASES)]
pub struct LeasesArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<LeasesVerb>,
}

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub enum LeasesVerb {
    /// List leases
    #[command(visible_alias = "list", before_help = examples::LEASES_LS)]
    Ls(LeasesLs),
    /// Make a lease and print its id
    #[command(before_help = examples::LEASES_CREATE)]
    Create(LeaseCreate),
    /// Remove leases; what they alone held goes at the next `cairn gc`
    #[command(visible_alias = "remove", aliases = ["del", "delete"],
              before_help = examples::LEASES_RM)]
    Rm(LeasesRm),
    /// Have a lease hold one more thing
    #[command(before_help = examples::LEASES_ADD)]
    Add(LeaseAdd),
    /// What a lease holds
    #[command(before_help = examples::LEASES_RESOURCES)]
    Resources {
        /// Which lease
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `ls`
#[derive(Debug, Default, Args)]
pub struct LeasesLs {
    /// Only these: a part of the id, or id==X, labels.KEY==X
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
}

/// `create`
#[derive(Debug, Args)]
pub struct LeaseCreate {
    /// Label it
    #[arg(value_name = "K=V", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Call it so [default: one is made up]
    #[arg(long, value_name = "ID", value_parser = |t: &str| LeaseId::parse(t))]
    pub id: Option<LeaseId>,
    /// How long it holds; 0 for ever
    #[arg(short = 'x', long, value_name = "D", default_value = "24h",
          value_parser = size::parse_duration)]
    pub expires: Duration,
}

/// `rm`
#[derive(Debug, Args)]
pub struct LeasesRm {
    /// Their ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Free the space before returning
    #[arg(long)]
    pub sync: bool,
}

/// `add`
#[derive(Debug, Args)]
pub struct LeaseAdd {
    /// Which lease
    #[arg(value_name = "ID")]
    pub id: String,
    /// content, images, ingests or snapshots
    #[arg(value_name = "TYPE", value_parser = resource_kind)]
    pub kind: ResourceKind,
    /// Digest, reference, ref or key; it need not be there yet
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// What a lease can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A blob.
    Content,
    /// An image's name.
    Images,
    /// An upload.
    Ingests,
    /// A snapshot.
    Snapshots,
}

fn resource_kind(text: &str) -> Result<ResourceKind, String> {
    match text {
        "content" | "blob" => Ok(ResourceKind::Content),
        "images" | "image" => Ok(ResourceKind::Images),
        "ingests" | "ingest" => Ok(ResourceKind::Ingests),
        "snapshots" | "snapshot" | "snapshots/overlayfs" => Ok(ResourceKind::Snapshots),
        _ => Err("a lease holds content, images, ingests or snapshots".to_owned()),
    }
}

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(before_help = examples::NAMESPACES)]
pub struct NamespacesArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<NamespacesVerb>,
}

/// What to do with namespaces.
#[derive(Debug, Subcommand)]
pub enum NamespacesVerb {
    /// List namespaces
    #[command(visible_alias = "list", before_help = examples::NAMESPACES_LS)]
    Ls,
    /// Make a namespace; using one makes it, too
    #[command(alias = "c", before_help = examples::NAMESPACES_CREATE)]
    Create {
        /// What to call it
        #[arg(value_name = "NAME", value_parser = |t: &str| Namespace::parse(t))]
        name: Namespace,
        /// Label it
        #[arg(value_name = "K=V", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Change labels
    #[command(before_help = examples::NAMESPACES_LABEL)]
    Label(LabelArgs),
    /// Remove empty namespaces
    #[command(visible_alias = "remove", aliases = ["del", "delete"],
              before_help = examples::NAMESPACES_RM)]
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true,
              value_parser = |t: &str| Namespace::parse(t))]
        names: Vec<Namespace>,
    },
}
