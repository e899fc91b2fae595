//! Who alone may do what, and for how long. Not durable: locks end with the process, as do those who hold them.

use std::collections::HashMap;

use holdfast_wire::store::StoreError;

/// Locks at once. Those whose time is over make way; else a new one answers [`StoreError::Full`].
const LOCKS_MAX: usize = 10_000;

/// All locks.
#[derive(Default)]
pub(crate) struct Locks {
    by_name: HashMap<Box<str>, Lock>,
}

struct Lock {
    holder: u64,
    until_ms: u64,
}

impl Locks {
    /// Takes a lock that is free, or that the holder has. Gives whether it has it now.
    pub(crate) fn take(
        &mut self,
        name: Box<str>,
        holder: u64,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        match self.by_name.get_mut(&name) {
            Some(lock) if lock.until_ms > now_ms && lock.holder != holder => return Ok(false),
            Some(lock) => *lock = Lock { holder, until_ms },
            None => {
                if self.by_name.len() >= LOCKS_MAX {
                    self.by_name.retain(|_, lock| lock.until_ms > now_ms);
                }
                if self.by_name.len() >= LOCKS_MAX {
                    return Err(StoreError::Full(format!("{LOCKS_MAX} locks are held")));
                }
                self.by_name.insert(name, Lock { holder, until_ms });
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_bounded_and_those_that_are_over_make_way() {
        let mut locks = Locks::default();
        for number in 0..LOCKS_MAX {
            assert_eq!(locks.take(number.to_string().into(), 1, 5, 0), Ok(true));
        }
        assert!(matches!(locks.take("more".into(), 1, 5, 4), Err(StoreError::Full(_))));
        assert_eq!(locks.take("more".into(), 1, 9, 5), Ok(true));
        assert_eq!(locks.by_name.len(), 1);
    }
}
