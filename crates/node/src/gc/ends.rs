//! What ends by time alone: no call says so, and nobody may call for days.

use cairn_meta::{IngestRecord, Timestamp, schema};
use cairn_types::{IngestRef, Labels, Namespace};

use super::{
    collection::{INGEST_LIFE, each},
    labels,
};
use crate::{Failure, Node};

/// The first of several ends.
struct First {
    since: i128,
    end: Option<i128>,
}

impl First {
    fn ends(&mut self, end: i128) {
        if end > self.since {
            self.end = Some(self.end.map_or(end, |first| first.min(end)));
        }
    }

    /// Of what was over when it was written the end was then.
    fn expires(&mut self, labels: &Labels, written: Timestamp) {
        if let Some(end) = labels::expiry(labels) {
            self.ends(end.max(i128::from(written.0)));
        }
    }
}

impl Node {
    /// When the first lease, image or resting upload ends, of those that end after `since`. Whatever ended
    /// before, a collection that began then has judged: what of it is still there something else holds.
    ///
    /// What conditions hold (`gc.cond`) is not asked.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn next_end(&self, since: Timestamp) -> Result<Option<Timestamp>, Failure> {
        let mut first = First {
            since: i128::from(since.0),
            end: None,
        };
        let mut resting: Vec<((Namespace, IngestRef), IngestRecord)> = Vec::new();
        let read = each(self, &schema::LEASES, |_, _, lease| {
            first.expires(&lease.labels, lease.created_at);
            Ok(())
        })
        .and_then(|()| {
            each(self, &schema::IMAGES, |_, _, image| {
                first.expires(&image.labels, image.updated_at);
                Ok(())
            })
        })
        .and_then(|()| {
            each(self, &schema::INGESTS, |_, key, upload| {
                if !upload.leased {
                    resting.push((key, upload));
                }
                Ok(())
            })
        });
        read.map_err(|err| Failure::of("look for what expires", &err))?;
        for (key, upload) in resting {
            if self.content().is_written(&key) {
                continue;
            }
            // When bytes last came only its file can tell.
            let came = self.content().status(&key.0, &key.1);
            let came = came.map_or(upload.updated_at, |info| info.updated_at);
            let last = upload.updated_at.max(came);
            first.ends(i128::from(last.0) + i128::from(INGEST_LIFE));
        }
        let end = first.end;
        Ok(end.map(|end| Timestamp(i64::try_from(end).unwrap_or(i64::MAX))))
    }
}
