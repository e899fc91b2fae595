//! Bodies of the fuzz targets: plain functions, which `cargo test` runs on the seed corpus too.
