//! What a check of the store found.

use super::short_words;
use crate::{
    model::Finding,
    table::{Cell, Column, Table},
};

/// SEVERITY OBJECT PROBLEM ACTION. Digests are shortened for people.
pub fn findings(findings: &[&Finding], short: bool) -> Table {
    let mut table = Table::new(&[
        Column::left("SEVERITY"),
        Column::left("OBJECT"),
        Column::left("PROBLEM"),
        Column::left("ACTION"),
    ]);
    let words = |text: &str| match short {
        true => short_words(text),
        false => text.to_owned(),
    };
    for finding in findings {
        table.row(vec![
            Cell::text(finding.severity),
            Cell::text(words(&format!("{} {}", finding.object, finding.name))),
            Cell::text(words(&problem(finding))),
            Cell::text(words(&action(finding))),
        ]);
    }
    table
}

/// What is wrong where, and what that means. Of a file of the store's its object tells as much.
fn problem(finding: &Finding) -> String {
    let mut text = match &finding.path {
        Some(path) if finding.kind.starts_with("tree-") => format!("{path}: {}", finding.detail),
        _ => finding.detail.clone(),
    };
    if !finding.meaning.is_empty() {
        text.push_str("; ");
        text.push_str(&finding.meaning);
    }
    text
}

/// What was done, or what helps.
fn action(finding: &Finding) -> String {
    match (&finding.action, finding.next.first()) {
        (Some(action), _) if finding.repaired => format!("mended: {action}"),
        (Some(action), _) => action.clone(),
        (None, next) => next.cloned().unwrap_or_default(),
    }
}
