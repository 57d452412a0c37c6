//! `Content`: blobs, and the uploads that become them.

mod read;
mod write;

use std::{borrow::Cow, pin::Pin};

use cairn_content::{BlobInfo, IngestInfo};
use cairn_node::Resource;
use cairn_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, Status as WireStatus, StatusRequest, StatusResponse, UpdateRequest,
    UpdateResponse, WriteContentRequest, WriteContentResponse, content_server::Content,
};
use cairn_types::{
    IngestRef,
    filter::{self, Fields, Filters},
    validate_label,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::read::Reading;
use super::Service;
use crate::{
    caller,
    calls::about,
    convert,
    status::{blocking, missing, of, of_failure},
};

/// Infos in one message of a listing (containerd `contentserver`).
const BATCH: usize = 100;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Filtered<'b>(&'b BlobInfo, &'b str);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "digest" => Some(Cow::Borrowed(self.1)),
            "labels" => filter::label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

struct FilteredStatus<'i>(&'i IngestInfo);

impl Fields for FilteredStatus<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        (path[0] == "ref").then(|| Cow::Borrowed(self.0.reference.as_str()))
    }
}

fn wire(info: BlobInfo) -> Info {
    Info {
        digest: info.digest.to_string(),
        size: convert::signed(info.size),
        created_at: Some(convert::time(info.created_at)),
        updated_at: Some(convert::time(info.updated_at)),
        labels: info.labels,
    }
}

/// `expected` stays empty; containerd leaves it so.
fn wire_status(info: IngestInfo) -> WireStatus {
    WireStatus {
        started_at: Some(convert::time(info.started_at)),
        updated_at: Some(convert::time(info.updated_at)),
        r#ref: info.reference.to_string(),
        offset: convert::signed(info.offset),
        total: convert::signed(info.total),
        expected: String::new(),
    }
}

#[tonic::async_trait]
impl Content for Service {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = convert::digest(&request.get_ref().digest)?;
        about("digest", &digest);
        let ns = caller::of(&request)?.ns;
        let info = self.look(move |node| node.content().info(&ns, &digest).map_err(|err| of(&err)));
        Ok(Response::new(InfoResponse {
            info: Some(wire(info.await?)),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let ns = caller::of(&request);
        let node = self.node.clone();
        let request = request.into_inner();
        let wanted = request.info.ok_or_else(|| missing("info"))?;
        let digest = convert::digest(&wanted.digest)?;
        about("digest", &digest);
        let ns = ns?.ns;
        let change = convert::mask(request.update_mask, &["labels"], &["labels"])?;
        for (key, value) in change.named("labels", &wanted.labels) {
            validate_label(key, value).map_err(|err| of(&err))?;
        }
        let info = blocking(move || {
            let known = node.content().info(&ns, &digest).map_err(|err| of(&err))?;
            let mut labels = known.labels;
            change.apply("labels", &mut labels, &wanted.labels);
            node.content()
                .set_labels(&ns, &digest, labels)
                .map_err(|err| of(&err))
        });
        Ok(Response::new(UpdateResponse {
            info: Some(wire(info.await?)),
        }))
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let all = blocking(move || node.content().list(&ns).map_err(|err| of(&err))).await?;
        let shown = all.into_iter().filter(|info| {
            let digest = info.digest.to_string();
            filters.pass(&Filtered(info, &digest))
        });
        let shown: Vec<Info> = shown.map(wire).collect();
        let batches: Vec<_> = shown
            .chunks(BATCH)
            .map(|batch| {
                Ok(ListContentResponse {
                    info: batch.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(batches))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let digest = convert::digest(&request.get_ref().digest)?;
        about("digest", &digest);
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        blocking(move || {
            node.remove_blob(&caller.ns, &digest).map_err(of_failure)?;
            node.let_go(&caller, &Resource::Content(digest))
                .map_err(of_failure)
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let digest = convert::digest(&request.get_ref().digest)?;
        about("digest", &digest);
        let ns = caller::of(&request)?.ns;
        let blob = self.look(move |node| {
            node.content()
                .open_blob(&ns, &digest)
                .map_err(|err| of(&err))
        });
        let reading = Reading::new(blob.await?, request.get_ref())?;
        Ok(Response::new(Box::pin(reading)))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let reference = convert::known(IngestRef::parse(&request.into_inner().r#ref))?;
        about("ingest", &reference);
        let info = blocking(move || {
            node.content()
                .status(&ns, &reference)
                .map_err(|err| of(&err))
        });
        Ok(Response::new(StatusResponse {
            status: Some(wire_status(info.await?)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let all = blocking(move || node.content().ingests(&ns).map_err(|err| of(&err))).await?;
        let shown = all
            .into_iter()
            .filter(|info| filters.pass(&FilteredStatus(info)));
        Ok(Response::new(ListStatusesResponse {
            statuses: shown.map(wire_status).collect(),
        }))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        // As containerd looks: a message without ref is wrong before a missing namespace is.
        let caller = caller::of(&request);
        let (node, linking) = (self.node.clone(), self.linking.clone());
        let answers = write::answers(node, linking, caller, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let linking = self.linking.clone();
        let reference = convert::known(IngestRef::parse(&request.into_inner().r#ref))?;
        about("ingest", &reference);
        blocking(move || {
            let linked = linking.end(&caller.ns, &reference);
            match node.content().abort(&caller.ns, &reference) {
                Err(cairn_content::Error::NoIngest { .. }) if linked => {}
                aborted => aborted.map_err(|err| of(&err))?,
            }
            node.let_go(&caller, &Resource::Ingest(reference))
                .map_err(of_failure)
        })
        .await?;
        Ok(Response::new(()))
    }
}
