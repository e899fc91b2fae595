//! The tables on the disk, and how changes get into them and a state out of them. The only room that names redb.
//!
//! ```text
//! meta      name              -> number                        "format", "epochs" (none above it was ever issued)
//! sessions  client id         -> session row
//! streams   stream key        -> (id, end)
//! messages  (stream id, offset) -> message
//! settled   (stream id, first offset) -> last offset             what members of a group settled behind what is not
//! collapse_keys (stream id, offset) -> key of that message
//! retained  topic             -> message
//! wills     number            -> will row
//! members   (group, client id) -> nothing
//! ```

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_wire::coding::Reader;
use holdfast_wire::session_record::StreamKey;
use redb::{Builder, Database, DatabaseError, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::directory::is_full;
use crate::contract::{Bounds, StoreError};
use crate::state::{Change, Restore, RestoreError, State, StreamRow};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const STREAMS: TableDefinition<'_, &[u8], (u64, u64)> = TableDefinition::new("streams");
const MESSAGES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("messages");
const SETTLED: TableDefinition<'_, (u64, u64), u64> = TableDefinition::new("settled");
const COLLAPSE_KEYS: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("collapse_keys");
const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");
const WILLS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("wills");
const MEMBERS: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("members");

/// What this version writes and reads.
const FORMAT: u64 = 3;

/// Epochs reserved at each start, so that none is issued twice without a write for each: 2^40 last a year at 30,000
/// opens a second, and there are 2^24 starts.
const EPOCHS_PER_START: u64 = 1 << 40;

/// Bytes of the file that redb may keep in memory. Little: questions are answered from the state.
const CACHE_BYTES: usize = 32 << 20;

/// Where the database lives. It is opened again after it has failed.
pub(super) trait Medium: Send {
    /// Opens the database, or makes an empty one.
    fn open(&self) -> Result<Database, DatabaseError>;
}

/// What every medium opens with.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The database, while it works.
pub(super) struct Disk {
    medium: Box<dyn Medium>,
    database: Option<Database>,
}

/// Why the disk did not do what was asked.
#[derive(Debug)]
pub(super) enum DiskError {
    /// The system's doing: no room, no permission, a failing device.
    Io(io::Error),
    /// Another process has the file.
    InUse,
    /// Written by another version.
    ForeignFormat { found: u64, known: u64 },
    /// What is there cannot be read.
    Damaged(String),
}

impl Disk {
    /// Opens the database, checks it and reads all of it.
    pub(super) fn open(
        medium: Box<dyn Medium>,
        bounds: Bounds,
        now_ms: u64,
    ) -> Result<(Self, State), DiskError> {
        // redb reads some pages before it has compared their checksums, and panics if it finds nonsense in them. Where
        // panics unwind this is damage like any other; nothing of what was being built is kept.
        let open = AssertUnwindSafe(|| Self::open_checked(medium, bounds, now_ms));
        catch_unwind(open)
            .unwrap_or_else(|_| Err(DiskError::Damaged("its pages contradict one another".to_owned())))
    }

    fn open_checked(
        medium: Box<dyn Medium>,
        bounds: Bounds,
        now_ms: u64,
    ) -> Result<(Self, State), DiskError> {
        let mut database = medium.open()?;
        // Everything is read below in any case; this makes sure that what is read is what was written.
        if !database.check_integrity()? {
            return Err(DiskError::Damaged("parts of it do not match their checksums".to_owned()));
        }
        let epochs = reserve_epochs(&database)?;
        let mut tidied = Vec::new();
        let state = load(&database, bounds, epochs, now_ms)?.finish(&mut tidied);
        write(&database, &tidied)?;
        Ok((Self { medium, database: Some(database) }, state))
    }

    /// Makes changes durable, all or none. After an error the same changes may be given again.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let result = match &self.database {
            Some(database) => write(database, changes),
            None => self.reopen().and_then(|database| write(database, changes)),
        };
        result.map_err(|error| {
            // redb trusts nothing after an error, and rightly: opening again returns to what was last committed.
            self.database = None;
            error.into()
        })
    }

    fn reopen(&mut self) -> Result<&Database, DiskError> {
        Ok(self.database.insert(self.medium.open()?))
    }
}

fn reserve_epochs(database: &Database) -> Result<Range<u64>, DiskError> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let start = {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|format| format.value());
        match format {
            Some(FORMAT) => {}
            Some(found) => return Err(DiskError::ForeignFormat { found, known: FORMAT }),
            None => {
                meta.insert("format", FORMAT)?;
            }
        }
        let start = meta.get("epochs")?.map_or(0, |epochs| epochs.value());
        let end = start
            .checked_add(EPOCHS_PER_START)
            .ok_or_else(|| DiskError::Damaged("its epochs are used up".to_owned()))?;
        meta.insert("epochs", end)?;
        start
    };
    // Tables that a load finds, even an empty one.
    Tables::open(&transaction)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(start + 1..start + EPOCHS_PER_START)
}

fn load(database: &Database, bounds: Bounds, epochs: Range<u64>, now_ms: u64) -> Result<Restore, DiskError> {
    use redb::ReadableDatabase;
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let mut restore = Restore::new(bounds, epochs, now_ms);
    for row in transaction.open_table(STREAMS)?.iter()? {
        let (key, row) = row?;
        let mut reader = Reader::new(key.value());
        let key =
            StreamKey::read(&mut reader).map_err(|why| RestoreError::Row { what: "stream's key", why })?;
        let (id, end) = row.value();
        restore.stream(key, StreamRow { id, end });
    }
    for row in transaction.open_table(MESSAGES)?.iter()? {
        let (place, message) = row?;
        let (id, offset) = place.value();
        restore.message(id, offset, message.value())?;
    }
    for row in transaction.open_table(SETTLED)?.iter()? {
        let (place, last) = row?;
        let (id, first) = place.value();
        restore.settled(id, first, last.value())?;
    }
    for row in transaction.open_table(COLLAPSE_KEYS)?.iter()? {
        let (place, key) = row?;
        let (id, offset) = place.value();
        restore.collapse_key(id, offset, key.value())?;
    }
    for row in transaction.open_table(SESSIONS)?.iter()? {
        let (client, row) = row?;
        restore.session(client.value(), row.value())?;
    }
    for row in transaction.open_table(RETAINED)?.iter()? {
        restore.retained(row?.1.value())?;
    }
    for row in transaction.open_table(WILLS)?.iter()? {
        let (number, row) = row?;
        restore.will(number.value(), row.value())?;
    }
    for row in transaction.open_table(MEMBERS)?.iter()? {
        let (member, _) = row?;
        let (group, client) = member.value();
        restore.member(group, client);
    }
    Ok(restore)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), DiskError> {
    if changes.is_empty() {
        return Ok(());
    }
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let mut tables = Tables::open(&transaction)?;
    for change in changes {
        tables.write(change)?;
    }
    drop(tables);
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

struct Tables<'t> {
    sessions: Table<'t, &'static str, &'static [u8]>,
    streams: Table<'t, &'static [u8], (u64, u64)>,
    messages: Table<'t, (u64, u64), &'static [u8]>,
    settled: Table<'t, (u64, u64), u64>,
    collapse_keys: Table<'t, (u64, u64), &'static str>,
    retained: Table<'t, &'static str, &'static [u8]>,
    wills: Table<'t, u64, &'static [u8]>,
    members: Table<'t, (&'static str, &'static str), ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, DiskError> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            streams: transaction.open_table(STREAMS)?,
            messages: transaction.open_table(MESSAGES)?,
            settled: transaction.open_table(SETTLED)?,
            collapse_keys: transaction.open_table(COLLAPSE_KEYS)?,
            retained: transaction.open_table(RETAINED)?,
            wills: transaction.open_table(WILLS)?,
            members: transaction.open_table(MEMBERS)?,
        })
    }

    fn write(&mut self, change: &Change) -> Result<(), DiskError> {
        match change {
            Change::Session(client, row) => drop(self.sessions.insert(client.as_str(), row.as_slice())?),
            Change::SessionGone(client) => drop(self.sessions.remove(client.as_str())?),
            Change::Stream(key, row) => {
                drop(self.streams.insert(encode(key).as_slice(), (row.id, row.end))?);
            }
            Change::StreamGone(key) => drop(self.streams.remove(encode(key).as_slice())?),
            Change::Message(id, offset, message) => {
                drop(self.messages.insert((*id, *offset), message.as_bytes())?);
            }
            Change::CollapseKey(id, offset, key) => {
                drop(self.collapse_keys.insert((*id, *offset), &**key)?);
            }
            Change::Settled(id, first, last) => drop(self.settled.insert((*id, *first), *last)?),
            Change::Trimmed(id, from, to) => {
                if from == to {
                    drop(self.messages.remove((*id, *from))?);
                    drop(self.collapse_keys.remove((*id, *from))?);
                } else {
                    self.messages.retain_in((*id, *from)..=(*id, *to), |_, _| false)?;
                    self.collapse_keys.retain_in((*id, *from)..=(*id, *to), |_, _| false)?;
                }
                // A run may go on behind a cut.
                self.settled.retain_in((*id, 0)..=(*id, *to), |_, last| last > *to)?;
            }
            Change::Retained(message) => {
                drop(self.retained.insert(message.view().topic, message.as_bytes())?);
            }
            Change::RetainedGone(topic) => drop(self.retained.remove(&**topic)?),
            Change::Will(number, row) => drop(self.wills.insert(*number, row.as_slice())?),
            Change::WillGone(number) => drop(self.wills.remove(*number)?),
            Change::Members(group, came, left) => {
                for client in came {
                    drop(self.members.insert((&**group, client.as_str()), ())?);
                }
                for client in left {
                    drop(self.members.remove((&**group, client.as_str()))?);
                }
            }
            Change::MembersGone(group, first, last, kept) => {
                let range = (&**group, first.as_str())..=(&**group, last.as_str());
                let is_kept = |client: &str| kept.binary_search_by(|kept| kept.as_str().cmp(client)).is_ok();
                self.members.retain_in(range, |(_, client), ()| is_kept(client))?;
            }
            Change::GroupGone(group) => {
                // The first name that is greater than the group's.
                let next = format!("{group}\0");
                self.members.retain_in((&**group, "")..(next.as_str(), ""), |_, ()| false)?;
            }
        }
        Ok(())
    }
}

fn encode(key: &StreamKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<RestoreError> for DiskError {
    fn from(error: RestoreError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io(error) if is_full(&error) => Self::Full(error.to_string()),
            DiskError::Io(error) => Self::Unavailable(error.to_string()),
            DiskError::InUse => Self::Unavailable("another process has the file open".to_owned()),
            DiskError::ForeignFormat { found, .. } => Self::Unreadable(format!("format {found}")),
            DiskError::Damaged(what) => Self::Unreadable(what),
        }
    }
}
