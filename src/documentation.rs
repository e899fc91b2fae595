//! Holds `docs/operating.md` to the code.
