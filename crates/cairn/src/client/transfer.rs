//! Images of registries and to them. While the server works it asks for credentials, which are looked
//! for beside the progress that it tells.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::cairn::v1::{
    self, PullRequest, PullResponse, PushRequest, PushResponse, images_client::ImagesClient,
    pull_request, pull_response, push_request, push_response,
};
use cairn_registry::credentials::Sources;
use cairn_types::{Digest, ErrorKind, ImageName, Labels, Platform};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Client, Progress, Remote, Result, Who,
    images::image,
    inspect::timing,
    link::client,
    progress::tell,
    registry::{self, wire},
    some,
};
use crate::{error::Problem, model, model::Transfer};

/// What is said before the first answer comes.
const AHEAD: usize = 4;

/// What to fetch.
pub struct PullOptions {
    /// Full.
    pub name: ImageName,
    /// How.
    pub remote: Remote,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// Asks nobody when the image is here and complete.
    pub missing_only: bool,
    /// As the flag.
    pub sync_fs: bool,
    /// For the image record.
    pub labels: Labels,
}

/// What to send, and where to.
pub struct PushOptions {
    /// Full.
    pub name: ImageName,
    /// What it is called there; full.
    pub remote_name: ImageName,
    /// How.
    pub remote: Remote,
    /// As the flag; without any, all that is here.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub manifest: Option<Digest>,
    /// As the flag.
    pub allow_non_distributable: bool,
}

/// What an answer has.
enum Told<T> {
    Progress(v1::Progress),
    Question(v1::CredentialQuestion),
    Ended(T),
    Nothing,
}

impl Client {
    /// Fetches an image.
    pub fn pull(
        &self,
        options: PullOptions,
        who: &Who,
        progress: &dyn Progress,
    ) -> Result<Transfer> {
        self.configure()?;
        let began = Instant::now();
        let name = options.name.clone();
        let sources = Arc::new(self.sources(&name, &options.remote, who)?);
        let (send, requests) = mpsc::channel(AHEAD);
        let first = pull_request::Part::Options(v1::PullOptions {
            name: options.name.to_string(),
            remote: Some(wire(&options.remote)),
            platforms: options.platforms.iter().map(Platform::to_string).collect(),
            all_platforms: options.all_platforms,
            unpack: options.unpack,
            labels: options.labels,
            missing_only: options.missing_only,
            sync_layers: options.sync_fs,
        });
        // It is empty still.
        let _ = send.try_send(PullRequest { part: Some(first) });
        let credential = |answer| PullRequest {
            part: Some(pull_request::Part::Credential(answer)),
        };
        let told = |answer: PullResponse| match answer.part {
            Some(pull_response::Part::Progress(told)) => Told::Progress(told),
            Some(pull_response::Part::Question(question)) => Told::Question(question),
            Some(pull_response::Part::Pulled(pulled)) => Told::Ended(pulled),
            None => Told::Nothing,
        };
        let pulled = self.link.run(async {
            let mut images = client!(self.link, ImagesClient<_>);
            let answers = images.pull(self.link.request(ReceiverStream::new(requests)));
            let answers = answers.await.map_err(|status| self.link.problem(&status))?;
            let conversation = Conversation {
                send,
                sources,
                credential,
                told,
            };
            self.follow_transfer(answers.into_inner(), conversation, progress)
                .await
        });
        let pulled = pulled.map_err(|problem| self.completed("pull image", &name, problem))?;
        let image = image(pulled.image.unwrap_or_default());
        Ok(Transfer {
            digest: image.target.digest.clone(),
            only_platform: None,
            image,
            fetched_bytes: pulled.fetched_bytes,
            sent_bytes: 0,
            reused_bytes: pulled.reused_bytes,
            layers: layers(pulled.layers),
            wall_ms: ms(began.elapsed()),
        })
    }

    /// Sends an image.
    pub fn push(
        &self,
        options: PushOptions,
        who: &Who,
        progress: &dyn Progress,
    ) -> Result<Transfer> {
        self.configure()?;
        let began = Instant::now();
        let name = options.remote_name.clone();
        let sources = Arc::new(self.sources(&name, &options.remote, who)?);
        let (send, requests) = mpsc::channel(AHEAD);
        let first = push_request::Part::Options(v1::PushOptions {
            name: options.name.to_string(),
            remote_name: options.remote_name.to_string(),
            remote: Some(wire(&options.remote)),
            platforms: options.platforms.iter().map(Platform::to_string).collect(),
            manifest: options
                .manifest
                .map(|digest| digest.to_string())
                .unwrap_or_default(),
            max_concurrent_uploads: options.remote.max_concurrent,
            allow_non_distributable: options.allow_non_distributable,
        });
        // As above.
        let _ = send.try_send(PushRequest { part: Some(first) });
        let credential = |answer| PushRequest {
            part: Some(push_request::Part::Credential(answer)),
        };
        let told = |answer: PushResponse| match answer.part {
            Some(push_response::Part::Progress(told)) => Told::Progress(told),
            Some(push_response::Part::Question(question)) => Told::Question(question),
            Some(push_response::Part::Pushed(pushed)) => Told::Ended(pushed),
            None => Told::Nothing,
        };
        let pushed = self.link.run(async {
            let mut images = client!(self.link, ImagesClient<_>);
            let answers = images.push(self.link.request(ReceiverStream::new(requests)));
            let answers = answers.await.map_err(|status| self.link.problem(&status))?;
            let conversation = Conversation {
                send,
                sources,
                credential,
                told,
            };
            self.follow_transfer(answers.into_inner(), conversation, progress)
                .await
        });
        let pushed = pushed.map_err(|problem| self.completed("push image", &name, problem))?;
        Ok(Transfer {
            image: image(pushed.image.unwrap_or_default()),
            digest: pushed.target.unwrap_or_default().digest,
            only_platform: some(pushed.only_platform),
            fetched_bytes: 0,
            sent_bytes: pushed.sent_bytes,
            reused_bytes: pushed.reused_bytes,
            layers: layers(pushed.layers),
            wall_ms: ms(began.elapsed()),
        })
    }

    /// What a registry says is the same in every namespace; a plain status says less.
    fn completed(&self, attempted: &str, name: &ImageName, problem: Problem) -> Problem {
        match &*problem.attempted {
            "" => self.explain(attempted, ("image", name.as_str()), problem),
            _ => problem,
        }
    }

    /// Hands progress on and answers questions until the end comes.
    async fn follow_transfer<A, Q: Send + 'static, T>(
        &self,
        mut answers: Streaming<A>,
        conversation: Conversation<A, Q, T>,
        progress: &dyn Progress,
    ) -> Result<T> {
        loop {
            let answer = answers.message().await;
            let Some(answer) = answer.map_err(|status| self.link.problem(&status))? else {
                let reason = "the server's answer ended before the work did";
                return Err(Problem::new(ErrorKind::Internal, "", "", reason));
            };
            match (conversation.told)(answer) {
                Told::Progress(told) => tell(progress, told),
                Told::Question(question) => conversation.answer(question.host),
                Told::Ended(end) => return Ok(end),
                Told::Nothing => {}
            }
        }
    }
}

/// Both sides of a call.
struct Conversation<A, Q, T> {
    send: mpsc::Sender<Q>,
    sources: Arc<Sources>,
    credential: fn(v1::CredentialAnswer) -> Q,
    told: fn(A) -> Told<T>,
}

impl<A, Q: Send + 'static, T> Conversation<A, Q, T> {
    /// Finds out who asks, beside what goes on: a helper may take its time.
    fn answer(&self, host: String) {
        let (send, sources) = (self.send.clone(), Arc::clone(&self.sources));
        let credential = self.credential;
        tokio::task::spawn_blocking(move || {
            // Once the call has ended nobody wants to know.
            let _ = send.blocking_send(credential(registry::answer(&sources, host)));
        });
    }
}

fn layers(layers: Vec<v1::TransferredLayer>) -> Vec<model::TransferredLayer> {
    let layer = |layer: v1::TransferredLayer| model::TransferredLayer {
        digest: layer.digest,
        diff_id: some(layer.diff_id),
        chain_id: some(layer.chain_id),
        size: layer.size,
        unpacked_size: layer.unpacked_size,
        host: some(layer.host),
        attempts: layer.attempts,
        timing_ms: layer.timing.map(timing),
    };
    layers.into_iter().map(layer).collect()
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
