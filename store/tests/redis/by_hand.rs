//! The users that `docs/redis-by-hand.md` gives a server.

use std::time::Duration;

use holdfast_store::contract::{Reply, Request};
use holdfast_store::{RedisOptions, RedisStore};
use holdfast_wire::ids::ClientId;

use crate::load::{ask, open};
use crate::redis_server::{RedisServer, free_port};

/// The lines of the recipe's `users.acl`, where each password is its user's name in capitals.
fn users() -> String {
    let recipe = include_str!("../../../docs/redis-by-hand.md");
    let users: Vec<_> = recipe.lines().filter(|line| line.starts_with("user ")).collect();
    assert_eq!(users.len(), 5, "{users:?}");
    users.join("\n").replace('$', "")
}

#[test]
fn a_server_with_the_recipes_users_starts_with_all_that_it_had() {
    let arguments = "--appendonly yes --appendfsync always --enable-debug-command yes";
    let server = RedisServer::configured(free_port(), arguments, &users());
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{}/", server.port());
    let options = RedisOptions { deadline: Duration::from_secs(10), ..RedisOptions::default() };
    let store = RedisStore::connect(&url("holdfast", "HOLDFAST"), options).unwrap();
    let epoch = open(&store, "d");
    let mut admin = redis::Client::open(url("admin", "ADMIN")).unwrap().get_connection().unwrap();
    // As a server does that starts.
    redis::cmd("DEBUG").arg("LOADAOF").exec(&mut admin).unwrap();
    match ask(&store, Request::Lookup { client: ClientId::new("d") }) {
        Ok(Reply::Session(Some(info))) => assert_eq!(info.epoch, epoch),
        other => panic!("its session is lost: {other:?}"),
    }
}

#[test]
fn nobody_comes_in_without_a_name() {
    let server = RedisServer::configured(free_port(), "", &users());
    for name in ["", "default:default@", "admin:guessed@"] {
        let client = redis::Client::open(format!("redis://{name}127.0.0.1:{}/", server.port())).unwrap();
        let came_in = client.get_connection().and_then(|mut open| redis::cmd("GET").arg("x").exec(&mut open));
        let refusal = came_in.expect_err(name);
        assert!(!refusal.is_io_error(), "{name:?}: {refusal}");
    }
}
