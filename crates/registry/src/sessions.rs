//! Uploads that go on in another process: who keeps what that takes.

use cairn_types::Descriptor;

use crate::upload::UploadState;

/// Keeps the sessions of uploads that are under way. Calls may wait for a disk, within a runtime of several
/// threads.
///
/// `place` is the repository by its address at the host that gave the session. A session is of use there
/// alone, and it has one user: what is kept for a blob that another upload is sending right now is not
/// handed out.
pub trait Sessions: Send + Sync {
    /// That of an upload that did not come to its end. It may be gone at the registry by now.
    fn kept(&self, place: &str, blob: &Descriptor) -> Option<UploadState>;

    /// An upload is to go on like this, if it has to.
    fn keep(&self, place: &str, blob: &Descriptor, state: &UploadState);

    /// An upload is done, or of no use any more.
    fn forget(&self, place: &str, blob: &Descriptor);
}

/// Keeps nothing.
pub(crate) struct Forgetful;

impl Sessions for Forgetful {
    fn kept(&self, _place: &str, _blob: &Descriptor) -> Option<UploadState> {
        None
    }

    fn keep(&self, _place: &str, _blob: &Descriptor, _state: &UploadState) {}

    fn forget(&self, _place: &str, _blob: &Descriptor) {}
}
