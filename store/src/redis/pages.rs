//! Pages of something that is spread over all partitions: one after the other, and in each in the order of its clients.
//!
//! The order is one of texts, so a page goes on where it ended whatever came and went meanwhile, and on any server that holds the same
//! data. What a page needs is small in a large store, one partition's next clients, and in a small one a few from each of many
//! partitions: so ever more of them are asked at once while they bring less than is wanted.

use std::future::Future;

use futures_util::future::join_all;
use holdfast_wire::ids::ClientId;
use holdfast_wire::store::SessionEntry;

use super::partition::{PARTITIONS, Partition};
use crate::contract::{Page, StoreError};

/// Partitions that are asked at once at most.
const WIDTH_MAX: u16 = 64;
/// Rounds of asking for one page at most, whatever they bring: a request has a deadline.
const ROUNDS_MAX: usize = 64;

/// What comes page by page.
pub(super) trait Entry {
    /// Whose it is, which says where it stands in its partition.
    fn client(&self) -> &ClientId;
}

impl Entry for ClientId {
    fn client(&self) -> &ClientId {
        self
    }
}

impl Entry for SessionEntry {
    fn client(&self) -> &ClientId {
        &self.client
    }
}

/// What one partition has brought.
pub(super) struct Part<T> {
    pub(super) found: Vec<T>,
    /// The last client that was looked at, if there may be more behind it.
    pub(super) goes_on_behind: Option<ClientId>,
}

/// Where a walk stands: before all of a partition, or behind one of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    partition: u16,
    behind: Option<ClientId>,
}

/// Collects a page. `ask` gives what a partition has behind a client, at most so many.
pub(super) async fn collect<T: Entry, F>(
    page: Option<&Page>,
    most: usize,
    ask: impl Fn(Partition, Option<ClientId>, usize) -> F,
) -> Result<(Vec<T>, Option<Page>), StoreError>
where
    F: Future<Output = Result<Part<T>, StoreError>>,
{
    let mut place = page.map_or(Ok(Place { partition: 0, behind: None }), |page| Place::read(page))?;
    let most = most.max(1);
    let (mut found, mut width) = (Vec::new(), 1);
    for _ in 0..ROUNDS_MAX {
        if place.partition >= PARTITIONS || found.len() >= most {
            break;
        }
        let first = place.partition;
        let batch = (first..(first + width).min(PARTITIONS)).map(|number| {
            let behind = if number == first { place.behind.clone() } else { None };
            ask(Partition(number), behind, most - found.len())
        });
        width = (width * 2).min(WIDTH_MAX);
        for (number, part) in (first..).zip(join_all(batch).await) {
            if found.len() >= most {
                break;
            }
            let Part { found: mut entries, goes_on_behind } = part?;
            let is_cut = entries.len() > most - found.len();
            entries.truncate(most - found.len());
            let behind =
                if is_cut { entries.last().map(|last| last.client().clone()) } else { goes_on_behind };
            found.extend(entries);
            if behind.is_some() {
                place = Place { partition: number, behind };
                width = 1;
                break;
            }
            place = Place { partition: number + 1, behind: None };
        }
    }
    Ok((found, (place.partition < PARTITIONS).then(|| place.write())))
}

impl Place {
    fn write(&self) -> Page {
        let mut bytes = self.partition.to_be_bytes().to_vec();
        if let Some(client) = &self.behind {
            bytes.push(BEHIND);
            bytes.extend_from_slice(client.as_bytes());
        }
        bytes.into()
    }

    fn read(page: &[u8]) -> Result<Self, StoreError> {
        let unreadable = || StoreError::Unreadable("a page that it never named".to_owned());
        let (partition, behind) = page.split_first_chunk().ok_or_else(unreadable)?;
        let partition = u16::from_be_bytes(*partition);
        let behind = match behind {
            [] => None,
            [BEHIND, client @ ..] if client.len() <= ClientId::BYTES_MAX => {
                Some(ClientId::new(std::str::from_utf8(client).map_err(|_| unreadable())?))
            }
            _ => return Err(unreadable()),
        };
        if partition >= PARTITIONS { Err(unreadable()) } else { Ok(Self { partition, behind }) }
    }
}

/// Stands before the client, as that may be empty.
const BEHIND: u8 = b'(';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_page() {
        for behind in [None, Some(""), Some("client")] {
            let place = Place { partition: 255, behind: behind.map(ClientId::new) };
            assert_eq!(Place::read(&place.write()), Ok(place));
        }
        for page in [&b""[..], b"\0", b"\x01\0", b"\0\0x", b"\0\0(\xff"] {
            assert!(matches!(Place::read(page), Err(StoreError::Unreadable(_))), "{page:?}");
        }
    }
}
