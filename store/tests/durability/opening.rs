//! What can be wrong with a directory, and that its owner is told in one line.

use std::fs;

use holdfast_store::contract::NEVER_EXPIRES_S;
use holdfast_store::{EmbeddedStore, OpenError, Options, open};

use crate::world::{ALICE, Bench};

fn refusal(directory: &std::path::Path) -> OpenError {
    let error = EmbeddedStore::open(directory, Options::default()).err().expect("it is refused");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[test]
fn a_directory_is_made_with_its_parents() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    drop(open(&format!("embedded:{}", path.display()), Options::default()).unwrap());
    assert!(path.join("store.redb").exists());
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let held = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    EmbeddedStore::open(directory.path(), Options::default()).unwrap();
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [&file, &file.join("below")] {
        let error = refusal(path);
        assert!(matches!(error, OpenError::Directory { .. }), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    fs::write(&file, "this is a letter to my aunt".repeat(1_000)).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(fs::read(&file).unwrap().starts_with(b"this is a letter"));
}

#[test]
fn a_foreign_format_is_named_with_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(directory.path(), Options::default()).unwrap());
    let database = redb::Database::create(directory.path().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::ForeignFormat { found: 99, known: 3, .. }), "{error}");
}

#[test]
fn a_file_of_the_former_format_is_named_although_its_tables_are_others() {
    let directory = tempfile::tempdir().unwrap();
    let database = redb::Database::create(directory.path().join("store.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 2).unwrap();
    let streams: redb::TableDefinition<'_, &[u8], (u64, u64, u64)> = redb::TableDefinition::new("streams");
    transaction.open_table(streams).unwrap().insert(b"s".as_slice(), (1, 2, 3)).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::ForeignFormat { found: 2, known: 3, .. }), "{error}");
}

#[test]
fn a_torn_file_is_refused_or_read_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::embedded();
    for number in 0..200 {
        bench.open(&number.to_string(), ALICE, 3_600);
    }
    let whole = bench.copy_of_database();
    let torn = directory.path().join("torn");
    fs::create_dir(&torn).unwrap();
    for keep in [1, 100, 4_096, 10_000, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
        fs::write(torn.join("store.redb"), &whole[..keep]).unwrap();
        let error = refusal(&torn);
        assert!(matches!(error, OpenError::Damaged { .. }), "with {keep} bytes kept: {error}");
    }
}

#[test]
fn flipped_bits_never_go_unseen_into_a_session() {
    let bench = Bench::embedded();
    for number in 0..200 {
        let name = format!("client-{number:04}");
        let epoch = bench.open(&name, ALICE, NEVER_EXPIRES_S).epoch;
        bench.close(&name, epoch, NEVER_EXPIRES_S);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    // An orderly end, so there is no last commit which a crash may have torn and which is therefore rolled back.
    let whole = bench.into_database();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut damaged = whole.clone();
        let end = (at + 64).min(whole.len());
        damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(&file, damaged).unwrap();
        match EmbeddedStore::open(directory.path(), Options::default()) {
            // What was hit held nothing.
            Ok(store) => assert_eq!(crate::world::count_sessions(&store, 200), 200, "at byte {at}"),
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("at byte {at}: {other}"),
        }
    }
    assert!(refused > 0);
}
