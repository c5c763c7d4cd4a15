//! A cluster of three is restarted node by node under load, and clients that follow `move` and resume notice nothing.
//!
//! Method: real nodes over a real Redis; users that move when they are told to (and one that waits for its close), back-ends
//! and HTTP pushers at two thousand pushes a second that push again what was refused, under the same idempotency key. Then what
//! the pushers were told is compared with what every user got over all its connections. The same with a node that is killed.

mod support;

mod rolling {
    pub mod pusher;
    pub mod subscriber;
    pub mod town;
}

use std::time::Duration;

use futures_util::future::join_all;
use rolling::{
    pusher::{self, Over, Pushing},
    subscriber::{Manner, Progress, Story, Subscriber},
    town::Town,
};
use support::{
    Client, Cluster, Config, Node, Redis, bounded_by,
    checker::{Report, check},
    eventually, json,
    node::Driver,
    proxy::Link,
    redis::Persistence,
};
use tokio::time::{Instant, sleep};

/// Users, of which each fifth waits for its close.
const USERS: usize = 15;
/// Pushers of each kind.
const PUSHERS: u32 = 4;
/// Pushes a second of all together, while nobody moves.
const RATE: f64 = 2400.0;

fn config() -> Config {
    // What a resuming connection is owed is paced, and beside it the outbox must hold what comes meanwhile.
    let roomy = Config::new().limit("outbox_frames_max", 1_000_000).limit("outbox_bytes_max", 256 << 20);
    // And the rings must reach back for as long as a move may take.
    let history = "\"tag*\"\nhistory = { count = 8192, age_s = 600, bytes = 16777216 }";
    let roomy = roomy.set("[[tags]]\nmatch", history);
    roomy.limit("drain", "\"1500ms\"").limit("close_timeout", "\"500ms\"")
}

/// What everybody has to tell after a run.
struct Told {
    stories: Vec<Story>,
    pushing: Vec<Pushing>,
    report: Report,
    /// The last value of the tag of class `latest`.
    last: u64,
}

/// Pushes while `happening` goes on.
async fn under_load(cluster: &mut Cluster, happening: impl AsyncFnOnce(&mut Cluster, &Town)) -> Told {
    let (town, progress, over) = (Town::new(&cluster.nodes), Progress::default(), Over::default());
    let mut users = Vec::new();
    for number in 0..USERS {
        let manner = if number % 5 == 4 { Manner::Waits } else { Manner::Follows };
        let mut user = Subscriber::new(town.clone(), format!("user{number}"), manner, progress.clone());
        let client = user.arrive().await;
        users.push((user, client));
    }
    for (_, client) in &mut users {
        client.settle().await;
    }
    let every = Duration::from_secs_f64(f64::from(2 * PUSHERS) * 8.0 / RATE);
    let over_sockets = join_all((0..PUSHERS).map(|n| pusher::over_socket(town.clone(), n, every, over.clone())));
    let over_http =
        join_all((0..PUSHERS).map(|n| pusher::over_http(town.clone(), 100 + n, n == 0, every, over.clone())));
    let pushing = async {
        let (mut pushing, http) = tokio::join!(over_sockets, over_http);
        let last = http[0].1;
        pushing.extend(http.into_iter().map(|(told, _)| told));
        let acknowledged = pushing.iter().flat_map(|it| &it.pushed).filter(|push| push.acknowledged).count();
        progress.last.set(Some(last));
        progress.owed.set(Some(acknowledged));
        (pushing, last)
    };
    let living = join_all(users.into_iter().map(|(user, client)| user.live(client)));
    let happening = async {
        sleep(Duration::from_millis(500)).await;
        happening(cluster, &town).await;
        sleep(Duration::from_millis(500)).await;
        over.set(true);
    };
    let (stories, (pushing, last), ()) = tokio::join!(living, pushing, happening);
    let pushed: Vec<_> = pushing.iter().flat_map(|it| it.pushed.clone()).collect();
    let received: Vec<_> = stories.iter().map(|story| story.received.clone()).collect();
    Told { report: check(&pushed, &received), stories, pushing, last }
}

/// Nothing acknowledged is lost, doubled or out of order; everything was accepted in the end.
fn expect_clean(name: &str, told: &Told, codes: &[u16]) {
    let Told { stories, pushing, report, last } = told;
    let count = |of: fn(&Story) -> usize| stories.iter().map(of).sum::<usize>();
    let (moves, connections) = (count(|story| story.moves), count(|story| story.connections));
    let again: usize = pushing.iter().map(|it| it.again).sum();
    let mut closes = std::collections::BTreeMap::<u16, usize>::new();
    let all = stories.iter().flat_map(|story| &story.closes).chain(pushing.iter().flat_map(|it| &it.closes));
    all.for_each(|code| *closes.entry(*code).or_default() += 1);
    eprintln!("{name}: {report}; {connections} connections, {moves} moves, {again} tried again, closes {closes:?}");
    assert_eq!((report.faults(), report.unsure, report.gaps_told), (0, 0, 0), "{report}");
    assert!(report.divergent.is_empty(), "{report}");
    assert!(report.acknowledged > 2000, "hardly any load: {report}");
    assert!(closes.keys().all(|code| codes.contains(code)), "{closes:?}");
    for story in stories {
        let values = &story.values;
        assert!(values.is_sorted_by(|a, b| a < b), "latest values went back or came twice: {values:?}");
        assert_eq!(values.last(), Some(last), "the last of the latest values");
    }
}

/// Every user is online once, on whichever node, as every node tells it.
async fn expect_everybody_online(cluster: &Cluster) {
    for node in &cluster.nodes {
        eventually("each user is online once", async || {
            let online = node.api().get("/v1/online", &[]).await.payload();
            let users = online["users"].as_array().expect("a list");
            let once = |user: &support::Value| user["connections"].as_array().is_some_and(|all| all.len() == 1);
            users.len() == USERS && users.iter().all(once)
        })
        .await;
    }
}

fn run(test: impl AsyncFnOnce(Cluster)) {
    bounded_by(Duration::from_secs(120), async {
        test(Cluster::over(Redis::start(Persistence::None).await, 3, config()).await).await;
    });
}

#[test]
fn a_rolling_restart_is_clean_for_clients_that_move_and_resume() {
    run(async |mut cluster: Cluster| {
        let begun = Instant::now();
        let told = under_load(&mut cluster, async |cluster, town| {
            for number in 0..cluster.nodes.len() {
                let mut old = cluster.nodes.remove(number);
                old.signal("TERM");
                assert_eq!(old.exited().await, Some(0), "{}", old.printed().join("\n"));
                let is_report = |line: &&String| line.contains("drained and stopped");
                eventually("its report", async || old.printed().iter().any(|line| is_report(&line))).await;
                eprintln!("node {}: {:?}", old.id, old.printed().iter().rfind(is_report));
                town.went(&old);
                let new = Node::start(old.id, cluster.queue(), Driver::Auto, &cluster.config).await;
                town.came(&new);
                cluster.nodes.insert(number, new);
            }
            expect_everybody_online(cluster).await;
        })
        .await;
        eprintln!("rolling restart: {:?}", begun.elapsed());
        // 1006 would be a connection that broke, 4008 one that could not keep up.
        expect_clean("rolling restart", &told, &[1000, 1012]);
        let moved = told.stories.iter().filter(|story| story.moves > 0).count();
        assert!(moved >= USERS * 2 / 3, "hardly anybody had to move: {moved}");
        assert!(told.pushing.iter().any(|it| it.moves > 0), "no back-end was told to move");
    });
}

#[test]
fn clients_of_a_node_that_is_killed_under_load_resume_elsewhere() {
    run(async |mut cluster: Cluster| {
        let told = under_load(&mut cluster, async |cluster, town| {
            let killed = cluster.nodes.pop().expect("three nodes");
            killed.signal("KILL");
            town.went(&killed);
            sleep(Duration::from_secs(2)).await;
        })
        .await;
        expect_clean("killed", &told, &[1000, 1006]);
        assert!(told.stories.iter().any(|story| story.closes.contains(&1006)), "nobody was on the node");
    });
}

/// What a client holds may be news to its next node.
#[test]
fn who_resumes_ahead_of_a_node_waits_for_it_and_is_told_of_no_gap() {
    bounded_by(Duration::from_secs(60), async {
        let redis = Redis::start(Persistence::None).await;
        let cluster = Cluster::through_proxy(redis, 2, false, Config::new()).await;
        let (api, link) = (cluster.a().api(), cluster.proxy.as_ref().expect("a proxy"));
        let mut client = Client::user(cluster.b(), "ann").await;
        let first = api.publish("gold", json!(1)).await;
        client.ask(json!({"type": "subscribe", "tags": [{"tag": "gold", "since": first}]})).await;
        // A question behind it in the same inbox was answered, so the node has heard the first.
        client.ask(json!({"type": "unsubscribe", "tags": ["gold"]})).await;
        // That one may have waited too, if it came before the first.
        let waited = async || cluster.b().metric("ws_resumes_ahead_total result=\"caught_up\"").await;
        let before = waited().await;
        link.turn(Link::Stalled);
        let ahead = api.publish("gold", json!(2)).await;
        client.ask(json!({"type": "subscribe", "tags": [{"tag": "gold", "since": ahead}]})).await;
        client.silent().await;
        link.turn(Link::Good);
        let next = api.publish("gold", json!(3)).await;
        let update = client.next().await;
        assert_eq!(
            (&update["id"], &update["prev"], &update["gap"]),
            (&json!(next), &json!(ahead), &json!(null)),
            "{update}"
        );
        assert_eq!(waited().await, before + 1.0);
        // A `since` that nobody ever gave is waited for, for a while.
        client.ask(json!({"type": "subscribe", "tags": [{"tag": "gold", "since": "abcdef-1"}]})).await;
        let snapshot = client.next().await;
        assert_eq!((&snapshot["id"], &snapshot["gap"]), (&json!(next), &json!(true)), "{snapshot}");
    });
}
