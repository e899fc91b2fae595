//! One push on its way to its outcome, in one try or in as many as it takes.
//!
//! What is sent is made once: a later try goes on where the former one ended, and sends nothing a second time. Knows neither ids nor who waits.

use std::sync::Arc;
use std::time::Instant;

use holdfast_wire::message::SharedMessage;

use super::deliver::{self, Patience};
use super::outcome::PushOutcome;
use super::request::{PushError, PushRequest, PushTarget};
use super::walk::{self, Listener};
use super::{Terms, names};
use crate::core::Core;
use crate::fanout::Publication;
use crate::store_requests::{Retries, is_temporary};

/// How often a store that is away is asked before anyone was promised anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// Its error is the answer.
    One,
    /// Until it answers.
    UntilAnswered,
}

/// A valid push to be carried out.
pub(super) struct Carry {
    pub(super) request: Arc<PushRequest>,
    pub(super) terms: Terms,
    pub(super) listener: Option<Listener>,
    pub(super) tries: Tries,
}

/// What a push sends, the same in each try.
enum Way<'a> {
    Device(&'a str, SharedMessage),
    Topic(Publication),
    Group(&'a str),
}

impl Carry {
    /// Brings it to its outcome. `held` is told while the store is asked again.
    pub(super) async fn out(
        self,
        core: &Arc<Core>,
        held: &(dyn Fn() + Sync),
    ) -> Result<PushOutcome, PushError> {
        let Self { request, terms, mut listener, tries } = self;
        let message = |topic: &str| request.message(core, topic, terms.asked_ms);
        let mut way = match &request.target {
            PushTarget::Device(client) => Way::Device(client, message(&request.topic_for(core, client)?)),
            PushTarget::Topic(topic) => Way::Topic(Publication::new(message(topic))),
            PushTarget::Group(group) => Way::Group(group),
        };
        let mut retries = Retries::new();
        loop {
            match way.go(core, &request, terms, &mut listener, held).await {
                Err(PushError::Store(error)) if tries == Tries::UntilAnswered && is_temporary(&error) => {
                    held();
                    retries.wait().await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Way<'_> {
    async fn go(
        &mut self,
        core: &Arc<Core>,
        request: &Arc<PushRequest>,
        terms: Terms,
        listener: &mut Option<Listener>,
        held: &(dyn Fn() + Sync),
    ) -> Result<PushOutcome, PushError> {
        let outcome = match self {
            Self::Device(client, message) => {
                let until = terms.acknowledged_within.map(|within| Instant::now() + within);
                let collapse_key = request.collapse_key.as_deref();
                deliver::to_device(core, client, message, collapse_key, Patience { until }, held).await?
            }
            Self::Topic(publication) => deliver::to_topic(core, publication).await?,
            // Each member's push is counted by itself.
            Self::Group(group) => return walk::to_group(core, group, request, terms, listener.take()).await,
        };
        metrics::counter!(names::PUSHES, "outcome" => outcome.name()).increment(1);
        Ok(outcome)
    }
}
