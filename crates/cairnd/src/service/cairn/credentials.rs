//! Credentials that the client has, and is asked for when a host wants any.
//!
//! It alone can read the files of who runs it, and start his helpers. What it answers is kept for the
//! call that it was asked in, and nowhere else.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_proto::cairn::v1::{self, credential_answer::Credential as Wire};
use cairn_registry::credentials::{Credential, Credentials, Found};
use tonic::{Status, Streaming};

use super::{
    progress::{self, Sender, Teller},
    refused,
};

/// How long a client may take. It may have to ask several helpers, which have half a minute each.
const PATIENCE: Duration = Duration::from_secs(120);

const GONE: &str = "the client went away before it had said any";

/// The client of one call.
pub(super) struct Asked<M> {
    send: Sender<M>,
    wrap: fn(v1::CredentialQuestion) -> M,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By host; `None` while the client thinks.
    answers: HashMap<String, Option<v1::CredentialAnswer>>,
    /// No more will come.
    ended: bool,
}

impl<M: Send + 'static> Asked<M> {
    /// Asks by what `wrap` makes of a question, sent to where `send` leads.
    pub(super) fn new(send: Sender<M>, wrap: fn(v1::CredentialQuestion) -> M) -> Arc<Asked<M>> {
        Arc::new(Asked {
            send,
            wrap,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One answer to each question; what was not asked is of no use.
    fn take(&self, answer: v1::CredentialAnswer) {
        if let Some(place @ None) = self.state().answers.get_mut(&answer.host) {
            *place = Some(answer);
            self.changed.notify_all();
        }
    }

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Takes the client's answers for as long as it is polled, and returns only when what came is none.
    async fn listen<Q>(
        &self,
        messages: &mut Streaming<Q>,
        answer: fn(Q) -> Option<v1::CredentialAnswer>,
    ) -> Status {
        loop {
            match messages.message().await {
                Ok(Some(message)) => match answer(message) {
                    Some(answer) => self.take(answer),
                    None => {
                        self.end();
                        return refused("go on", "a message after the first must have an answer");
                    }
                },
                // Whether the client has nothing more to say or is gone, nothing is to be waited for.
                Ok(None) | Err(_) => {
                    self.end();
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Answers a call with the events of `work` and what it returns, while the client's messages are taken
/// as answers to what `asked` asks.
pub(super) async fn run<M, Q, F>(
    asked: &Asked<M>,
    mut messages: Streaming<Q>,
    answer: fn(Q) -> Option<v1::CredentialAnswer>,
    wrap: fn(v1::Progress) -> M,
    work: F,
) -> Result<(), Status>
where
    M: Send + 'static,
    F: FnOnce(&Teller<M>) -> Result<M, Status> + Send + 'static,
{
    // Also where the call is given up and this with it: threads of others wait for the answer.
    let _ends = Ends(asked);
    tokio::select! {
        () = progress::run(asked.send.clone(), wrap, work) => Ok(()),
        status = asked.listen(&mut messages, answer) => Err(status),
    }
}

/// Dropped, no more answers come.
struct Ends<'a, M: Send + 'static>(&'a Asked<M>);

impl<M: Send + 'static> Drop for Ends<'_, M> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<M: Send + 'static> Credentials for Asked<M> {
    fn find(&self, host: &str) -> Result<Option<Found>, String> {
        let mut state = self.state();
        if !state.answers.contains_key(host) {
            state.answers.insert(host.to_owned(), None);
            drop(state);
            let host = host.to_owned();
            let question = (self.wrap)(v1::CredentialQuestion { host });
            let sent = self.send.blocking_send(Ok(question));
            sent.map_err(|_| GONE.to_owned())?;
            state = self.state();
        }
        let unanswered =
            |state: &mut State| !state.ended && matches!(state.answers.get(host), Some(None));
        let waited = self.changed.wait_timeout_while(state, PATIENCE, unanswered);
        let (state, limit) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.answers.get(host) {
            Some(Some(answer)) => found(answer),
            _ if limit.timed_out() => Err(format!(
                "the client did not say any within {} s",
                PATIENCE.as_secs()
            )),
            _ if self.send.is_closed() => Err(GONE.to_owned()),
            // It said from the begin that it would answer nothing.
            _ => Ok(None),
        }
    }

    fn looked_in(&self, host: &str) -> Vec<String> {
        match self.state().answers.get(host) {
            Some(Some(answer)) => answer.looked_in.clone(),
            _ => Vec::new(),
        }
    }
}

fn found(answer: &v1::CredentialAnswer) -> Result<Option<Found>, String> {
    if !answer.wrong.is_empty() {
        return Err(answer.wrong.clone());
    }
    let credential = match answer.credential.clone() {
        None => return Ok(None),
        Some(Wire::Basic(v1::BasicCredential { user, secret })) => {
            Credential::Basic { user, secret }
        }
        Some(Wire::Identity(token)) => Credential::Identity(token),
        Some(Wire::Bearer(token)) => Credential::Bearer(token),
    };
    let source = answer.source.clone();
    Ok(Some(Found { credential, source }))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    type Receiver = tokio::sync::mpsc::Receiver<Result<v1::CredentialQuestion, Status>>;

    fn asked() -> (Arc<Asked<v1::CredentialQuestion>>, Receiver) {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        (Asked::new(send, |question| question), receive)
    }

    fn alice(host: &str) -> v1::CredentialAnswer {
        v1::CredentialAnswer {
            host: host.to_owned(),
            credential: Some(Wire::Basic(v1::BasicCredential {
                user: "alice".to_owned(),
                secret: "hidden".to_owned(),
            })),
            source: "-u".to_owned(),
            looked_in: vec!["~/.docker/config.json".to_owned()],
            wrong: String::new(),
        }
    }

    fn ask(
        asked: &Arc<Asked<v1::CredentialQuestion>>,
        host: &'static str,
    ) -> thread::JoinHandle<Result<Option<Found>, String>> {
        let asked = Arc::clone(asked);
        thread::spawn(move || asked.find(host))
    }

    #[test]
    fn each_host_is_asked_for_once() {
        let (asked, mut questions) = asked();
        // Nobody has asked that yet.
        asked.take(alice("a"));
        let first = ask(&asked, "a");
        let question = questions.blocking_recv().expect("a question").expect("ok");
        assert_eq!(question.host, "a");
        asked.take(alice("b"));
        asked.take(alice("a"));
        let found = first.join().expect("join").expect("answer");
        let found = found.expect("a credential");
        assert_eq!(
            (&*found.source, format!("{found:?}").contains("hidden")),
            ("-u", false)
        );
        assert_eq!(asked.find("a"), Ok(Some(found)));
        assert_eq!(asked.looked_in("a"), ["~/.docker/config.json"]);
        assert!(questions.try_recv().is_err(), "asked again");
    }

    #[test]
    fn what_the_client_could_not_find_out_is_an_error() {
        let (asked, mut questions) = asked();
        let first = ask(&asked, "a");
        questions.blocking_recv().expect("a question").expect("ok");
        asked.take(v1::CredentialAnswer {
            wrong: "it is not JSON".to_owned(),
            ..alice("a")
        });
        assert_eq!(
            first.join().expect("join"),
            Err("it is not JSON".to_owned())
        );
    }

    /// One that is there and will not answer has no credentials; one that is gone has ended the call.
    #[test]
    fn nobody_waits_for_a_client_that_says_no_more() {
        let (here, mut questions) = asked();
        let first = ask(&here, "a");
        questions.blocking_recv().expect("a question").expect("ok");
        here.end();
        assert_eq!(first.join().expect("join"), Ok(None));

        let (left, mut questions) = asked();
        let first = ask(&left, "a");
        let ends = Ends(&*left);
        questions.blocking_recv().expect("a question").expect("ok");
        drop(questions);
        drop(ends);
        assert_eq!(first.join().expect("join"), Err(GONE.to_owned()));

        let (gone, questions) = asked();
        drop(questions);
        assert_eq!(gone.find("a"), Err(GONE.to_owned()));
    }
}
