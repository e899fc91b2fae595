//! Sessions that expired, in the book of events.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::store::{Reply, Request};
use tokio::sync::watch;

use crate::books::EventBook;
use crate::core::Core;
use crate::store_requests::ask;

/// How often the store is asked. It keeps them for minutes, and each question goes to all of its parts.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Sessions that are asked for at once; the book has room for ten times as many.
const SESSIONS_MAX: u32 = 1_000;
/// Between two questions while there are more, so that the book is written meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells of them while this bridge is the one that reaps, and if there is a book; else the store keeps none. An answer that is lost, or a bridge that dies with it,
/// takes those events along: the book is a convenience.
pub(super) async fn keep_telling(core: &Arc<Core>, leads: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(ASK_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        while *leads.borrow()
            && let Some(book) = core.books.events.get()
            && tell_some(core, &**book).await
        {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Tells of some; whether there may be more.
async fn tell_some(core: &Core, book: &dyn EventBook) -> bool {
    match ask(&*core.store, Request::TakeExpired { sessions_max: SESSIONS_MAX }).await {
        Ok(Reply::Expired(sessions)) => {
            for session in &sessions {
                book.note_expired(session);
            }
            !sessions.is_empty()
        }
        Ok(_) => false,
        Err(error) => {
            tracing::debug!(%error, "sessions that expired cannot be asked for");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use holdfast_store::{Bounds, MemoryStore};
    use holdfast_wire::ids::{ClientId, NodeId, Owner, ShardId};
    use holdfast_wire::link::Event;
    use holdfast_wire::store::{ExpiredSession, Progress};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::BridgeConfig;
    use crate::sink::{Lane, Sink, SinkHealth};

    struct NoSink;

    impl Sink for NoSink {
        fn lane(&self) -> Box<dyn Lane> {
            unreachable!("nothing is stored")
        }

        fn health(&self) -> SinkHealth {
            SinkHealth { kind: "log", stores: true, spool: None }
        }
    }

    #[derive(Default)]
    struct Noted(Mutex<Vec<ExpiredSession>>);

    impl EventBook for Noted {
        fn note(&self, _: Owner, _: &Event<'_>) {}

        fn note_expired(&self, session: &ExpiredSession) {
            self.0.lock().unwrap().push(session.clone());
        }
    }

    async fn rest(core: &Core, client: &ClientId) {
        let owner = Owner { node: NodeId(1), shard: ShardId(0) };
        let open =
            Request::Open { client: client.clone(), owner, clean_start: false, expiry_s: 60, will: None };
        let Ok(Reply::Opened(opened)) = ask(&*core.store, open).await else { panic!("it opens") };
        let (client, progress) = (client.clone(), Progress::default());
        let close = Request::Close { client, epoch: opened.epoch, expiry_s: 60, progress, will: None };
        assert_eq!(ask(&*core.store, close).await, Ok(Reply::Done));
    }

    #[tokio::test]
    async fn each_session_that_expired_is_noted_once() {
        let now = Arc::new(AtomicU64::new(1_000));
        let hand = Arc::clone(&now);
        let store = MemoryStore::new(Arc::new(move || hand.load(Ordering::Relaxed)), Bounds::default());
        let core = Core::new(BridgeConfig::default(), Arc::new(store), Arc::new(NoSink), mpsc::channel(1).0);
        let (core, book) = (core.unwrap(), Noted::default());
        assert!(!tell_some(&core, &book).await);
        let clients: Vec<_> = (0..2_500).map(|number| ClientId::new(&format!("{number:04}"))).collect();
        for client in &clients {
            rest(&core, client).await;
        }
        assert!(!tell_some(&core, &book).await);
        now.fetch_add(60_000, Ordering::Relaxed);
        while tell_some(&core, &book).await {}
        let mut noted = book.0.into_inner().unwrap();
        noted.sort_by(|a, b| a.client.cmp(&b.client));
        assert!(noted.iter().map(|session| &session.client).eq(&clients));
        assert!(noted.iter().all(|session| session.at_ms == 61_000));
    }
}
