//! Where the space went, namespace by namespace and on the disk itself.

use crate::{
    model::{Disk, NamespaceUsage, Unexplained},
    table::{Cell, Column, Table},
};

/// NAMESPACE SIZE UNPACKED UNIQUE.
pub fn df_namespaces(namespaces: &[NamespaceUsage]) -> Table {
    let mut table = Table::new(&[
        Column::left("NAMESPACE"),
        Column::right("SIZE"),
        Column::right("UNPACKED"),
        Column::right("UNIQUE"),
    ]);
    for namespace in namespaces {
        table.row(vec![
            Cell::text(&*namespace.name),
            Cell::bytes(Some(namespace.content_size)),
            Cell::bytes(Some(namespace.snapshot_size)),
            Cell::bytes(Some(namespace.unique_size)),
        ]);
    }
    table
}

/// TYPE TOTAL SIZE INODES, kinds of which there is nothing left out; what is unexplained, and the sums.
pub fn disk(disk: &Disk) -> Table {
    let mut table = Table::new(&[
        Column::left("TYPE"),
        Column::right("TOTAL"),
        Column::right("SIZE"),
        Column::right("INODES"),
    ]);
    let mut row = |kind: &str, total: Option<u64>, size, inodes: u64| {
        table.row(vec![
            Cell::text(kind),
            total.map_or_else(|| Cell::Number("-".to_owned()), Cell::number),
            Cell::bytes(Some(size)),
            Cell::number(inodes),
        ]);
    };
    for one in disk.rows.iter().filter(|one| one.inodes > 0) {
        row(&one.kind, Some(one.total), one.size, one.inodes);
    }
    let (size, inodes) = disk.left();
    let paths = disk.unexplained.len() as u64;
    row("unexplained", Some(paths), size, inodes);
    row("total", None, disk.size, disk.inodes);
    table
}

/// PATH SIZE INODES.
pub fn unexplained(paths: &[Unexplained]) -> Table {
    let mut table = Table::new(&[
        Column::left("PATH"),
        Column::right("SIZE"),
        Column::right("INODES"),
    ]);
    for one in paths {
        table.row(vec![
            Cell::text(&*one.path),
            Cell::bytes(Some(one.size)),
            Cell::number(one.inodes),
        ]);
    }
    table
}
