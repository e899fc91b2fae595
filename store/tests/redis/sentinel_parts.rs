//! Sentinels that say what a test has them say: some late, some nothing at all, and some what was true before they were cut off.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use holdfast_store::contract::Request;
use holdfast_store::{RedisOptions, RedisStore};

use crate::load::{PATIENCE, ask_until_done, connect, message};
use crate::redis_forms::NAME;
use crate::redis_server::{RedisServer, until};
use crate::world::device;

/// What a sentinel answers.
#[derive(Clone, Copy)]
enum Part {
    /// The primary's port, and the number of the failover that made it one.
    Names(u16, u64),
    /// The same, but so late that nobody waits for it who has heard enough.
    NamesLate(u16, u64),
    /// It leads this failover, which has made the second one the primary, and has the first one in its list until all replicas follow.
    Leads(u16, u16, u64),
    /// Nothing until it has another part.
    Silent,
}

#[derive(Default)]
struct Stage {
    part: Mutex<(Option<Part>, usize)>,
    changed: Condvar,
}

/// A sentinel; its threads end with the test's process, or with the connections.
struct Actor {
    port: u16,
    stage: Arc<Stage>,
}

impl Actor {
    fn start(part: Part) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let actor = Self { port: listener.local_addr().unwrap().port(), stage: Arc::default() };
        actor.plays(part);
        let stage = Arc::clone(&actor.stage);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let stage = Arc::clone(&stage);
                std::thread::spawn(move || answer_all(connection.unwrap(), &stage));
            }
        });
        actor
    }

    fn plays(&self, part: Part) {
        self.stage.part.lock().unwrap().0 = Some(part);
        self.stage.changed.notify_all();
    }

    /// How often it was asked.
    fn questions(&self) -> usize {
        self.stage.part.lock().unwrap().1
    }
}

impl Stage {
    /// What is to be said to one more question: who stands in the list, who is named, and the number of the failover.
    fn cue(&self) -> (u16, u16, u64) {
        let mut part = self.part.lock().unwrap();
        part.1 += 1;
        let silent = |part: &mut (Option<Part>, usize)| matches!(part.0, None | Some(Part::Silent));
        let (part, _) = self.changed.wait_timeout_while(part, PATIENCE, silent).unwrap();
        match part.0 {
            Some(Part::Names(port, epoch)) => (port, port, epoch),
            Some(Part::Leads(former, promoted, epoch)) => (former, promoted, epoch),
            Some(Part::NamesLate(port, epoch)) => {
                drop(part);
                // A sentinel on a busy machine, not a wait for something.
                std::thread::sleep(Duration::from_millis(500));
                (port, port, epoch)
            }
            _ => panic!("the test is over"),
        }
    }
}

/// Until the other end goes.
fn answer_all(connection: TcpStream, stage: &Stage) -> Option<()> {
    let mut words = BufReader::new(connection.try_clone().ok()?);
    let mut answers = connection;
    let mut said = (0, 0, 0);
    loop {
        let command = read_command(&mut words)?;
        if command[0] == "SENTINEL" {
            if command[1] == "MASTER" {
                said = stage.cue();
            }
            let (listed, named, epoch) = said;
            let fields = match &*command[1] {
                "MASTER" => ["name", NAME, "port", &listed.to_string(), "config-epoch", &epoch.to_string()]
                    .map(str::to_owned)
                    .to_vec(),
                _ => vec!["127.0.0.1".to_owned(), named.to_string()],
            };
            let bulk = |field: &String| format!("${}\r\n{field}\r\n", field.len());
            let all: String = fields.iter().map(bulk).collect();
            write!(answers, "*{}\r\n{all}", fields.len()).ok()?;
        } else {
            answers.write_all(b"+OK\r\n").ok()?;
        }
    }
}

/// An array of strings, as all commands are.
fn read_command(words: &mut impl BufRead) -> Option<Vec<String>> {
    let mut length = |sign: char| {
        let mut line = String::new();
        words.read_line(&mut line).ok()?;
        let length = line.trim_end().strip_prefix(sign)?.parse::<usize>().ok()?;
        let mut bytes = vec![0; if sign == '$' { length + 2 } else { 0 }];
        words.read_exact(&mut bytes).ok()?;
        bytes.truncate(length);
        Some((length, String::from_utf8(bytes).ok()?))
    };
    let (count, _) = length('*')?;
    (0..count).map(|_| Some(length('$')?.1)).collect()
}

fn all_play(actors: &[Actor], part: Part) {
    for actor in actors {
        actor.plays(part);
    }
}

fn url(actors: &[Actor]) -> String {
    let all: Vec<_> = actors.iter().map(|actor| format!("127.0.0.1:{}", actor.port)).collect();
    format!("redis+sentinel://{}/{NAME}", all.join(","))
}

fn append(store: &RedisStore) {
    let streams = vec![device("d")];
    ask_until_done(store, &Request::Append { streams, message: message("x"), collapse_key: None });
}

fn end_connections(server: &RedisServer) {
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut server.connection()).unwrap();
}

/// How many connections a server has taken, that of the question among them.
fn connections(server: &RedisServer) -> usize {
    let stats: String = redis::cmd("INFO").arg("stats").query(&mut server.connection()).unwrap();
    let taken = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    taken.unwrap().trim().parse().unwrap()
}

#[test]
fn a_lost_connection_is_not_dialled_again_at_a_primary_that_was_failed_over() {
    let [former, present] = [(); 2].map(|()| RedisServer::start(""));
    let actors = [(); 3].map(|()| Actor::start(Part::Names(former.port(), 7)));
    let store = connect(&url(&actors));
    append(&store);
    all_play(&actors, Part::Names(present.port(), 8));
    let keys = || redis::cmd("DBSIZE").query::<usize>(&mut present.connection()).unwrap();
    until("it has followed", || keys() > 0);
    append(&store);
    // One was cut off before the failover, and still says what it knew; the others are too busy to answer.
    actors[0].plays(Part::Names(former.port(), 7));
    all_play(&actors[1..], Part::Silent);
    let before = connections(&former);
    end_connections(&present);
    let asked = actors[0].questions();
    until("it has asked again and again", || actors[0].questions() > asked + 3);
    all_play(&actors[1..], Part::Names(present.port(), 8));
    append(&store);
    assert_eq!(connections(&former), before + 1, "nobody went there but this question");
}

#[test]
fn what_most_of_the_sentinels_say_is_waited_for_before_anybody_is_dialled() {
    let [former, present] = [(); 2].map(|()| RedisServer::start(""));
    let actors = [(); 3].map(|()| Actor::start(Part::Names(former.port(), 7)));
    // Half of it is how long they are waited for.
    let options = RedisOptions { deadline: Duration::from_secs(20), ..RedisOptions::default() };
    let store = RedisStore::connect(&url(&actors), options).unwrap();
    append(&store);
    all_play(&actors[1..], Part::NamesLate(present.port(), 8));
    let before = connections(&former);
    end_connections(&former);
    append(&store);
    assert_eq!(connections(&former), before + 2, "nobody went there but these questions");
}

#[test]
fn a_sentinel_that_leads_a_failover_does_not_lead_back_to_the_former_primary() {
    let [former, present] = [(); 2].map(|()| RedisServer::start(""));
    let actors = [(); 3].map(|()| Actor::start(Part::Names(former.port(), 7)));
    let store = connect(&url(&actors));
    append(&store);
    // Who answers first, or alone, leads it.
    all_play(&actors[1..], Part::Silent);
    actors[0].plays(Part::Leads(former.port(), present.port(), 8));
    let keys = || redis::cmd("DBSIZE").query::<usize>(&mut present.connection()).unwrap();
    until("it has followed", || keys() > 0);
    all_play(&actors[1..], Part::Names(present.port(), 8));
    let before = connections(&former);
    end_connections(&present);
    append(&store);
    assert_eq!(connections(&former), before + 1, "nobody went there but this question");
}
