//! Placeholder head of the crate; replaced by its first room.
