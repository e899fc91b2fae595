//! Where a session reads on that has read before, though some of the streams may have been lost without it.
//!
//! A session and the streams that it reads are in different slots, and one primary of a cluster may lose its data alone. A stream then does not
//! know a reader that the session's row names: it would be appended to for others, or for nobody, and trimmed. So whoever comes back, and whoever
//! is written back and found to be there, asks each of its streams; those that do not know it are joined again in the three steps of `subscribing`.

use futures_util::future::join_all;
use holdfast_wire::ids::Epoch;
use holdfast_wire::session_record::{Cursor, Offset, StreamKey};

use super::answer::Word;
use super::dispatch::Worker;
use super::partition::Partition;
use super::sessions::is_group;
use super::subscribing::Joined;
use crate::contract::StoreError;

/// A stream that a session reads, as its row has it.
pub(super) struct Place {
    pub(super) filter: Box<str>,
    pub(super) reader: Vec<u8>,
    pub(super) mark: Offset,
}

/// How a session comes to its streams.
#[derive(Clone, Copy)]
pub(super) enum Coming {
    /// Its client has opened it.
    Opened,
    /// It is written back over an older state of it, or was there all the time.
    WrittenBack,
}

impl Worker {
    /// Where a session reads on in streams that it has read before, each joined again that has forgotten it.
    pub(super) async fn read_on(
        &self,
        client: &str,
        epoch: Epoch,
        coming: Coming,
        places: Vec<Place>,
    ) -> Result<Vec<Cursor>, StoreError> {
        let stands = join_all(places.iter().map(|place| self.stands_at(place, epoch, coming))).await;
        let (mut cursors, mut lost) = (Vec::new(), Vec::new());
        for (place, stands_at) in places.into_iter().zip(stands) {
            match stands_at? {
                Some(acked) => cursors.push(Cursor { stream: StreamKey::Filter(place.filter), acked }),
                None => lost.push(place),
            }
        }
        if !lost.is_empty() {
            cursors.extend(self.rejoin(client, epoch, lost).await?);
        }
        Ok(cursors)
    }

    /// Where it stands in one of them, or nothing if that does not know it.
    async fn stands_at(
        &self,
        place: &Place,
        epoch: Epoch,
        coming: Coming,
    ) -> Result<Option<Offset>, StoreError> {
        let Place { filter, reader, mark } = place;
        let partition = Partition::of_filter(filter);
        let call = if is_group(filter) {
            let call = self.server.call("resume", partition).arg(self.now()).arg(&**filter).arg(&**reader);
            call.arg(epoch.0).arg(*mark)
        } else {
            self.server.call("reads", partition).arg(&**filter).arg(&**reader)
        };
        let mut answer = match (self.server.answer(call).await, coming) {
            // A client is not kept out by a primary that is away and holds other streams too. Should that one come back with nothing, all
            // sessions are written back.
            (Err(StoreError::Unavailable(_)), Coming::Opened) => return Ok(Some(*mark)),
            (answer, _) => answer?,
        };
        if answer.word()? == Word::None {
            return Ok(None);
        }
        // The stream's own mark may be behind the session's, of which it hears later; a member's base may be ahead, if a failover has set the session back.
        Ok(Some(if is_group(filter) { answer.number()? } else { *mark }))
    }

    async fn rejoin(&self, client: &str, epoch: Epoch, lost: Vec<Place>) -> Result<Vec<Cursor>, StoreError> {
        let partition = Partition::of_client(client);
        let ask = |joined: &[Joined]| {
            let mut call = self.server.call("rejoin", partition).arg(self.now()).arg(client).arg(epoch.0);
            for (at, place) in lost.iter().enumerate() {
                let (fresh, mark) = joined.get(at).map_or((&[][..], 0), |new| (&*new.reader, new.mark));
                call = call.arg(&*place.filter).arg(&*place.reader).arg(fresh).arg(mark);
            }
            self.server.answer(call)
        };
        let mut fresh = ask(&[]).await?;
        fresh.word()?;
        let mut joins = Vec::new();
        for place in &lost {
            joins.push(self.join(place.filter.clone(), fresh.bytes()?, epoch, true));
        }
        let joined: Vec<Joined> = join_all(joins).await.into_iter().collect::<Result<_, _>>()?;
        let mut exchanged = ask(&joined).await?;
        exchanged.word()?;
        self.leave_all(partition, exchanged.list()?).await;
        let cursor = |(place, new): (Place, Joined)| Cursor {
            stream: StreamKey::Filter(place.filter),
            acked: new.mark,
        };
        Ok(lost.into_iter().zip(joined).map(cursor).collect())
    }
}
