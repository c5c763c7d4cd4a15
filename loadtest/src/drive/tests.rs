//! Method: scenarios of some tenths of a second against the ideal server in a thread of its own, sound or spoiled at its
//! twentieth publication. What spoils it must be told by its name.

use std::{net::TcpListener, sync::Arc, thread};

use super::*;
use crate::{
    findings::Findings,
    ideal::{Change, Ideal},
    scenario::{Churn, Group, Opening, Requests, Storm},
};

const SPOILED: usize = 20;

struct Server {
    target: Running,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(change: impl Fn() -> Change + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = Running::at(listener.local_addr().expect("an address"), Running::usual_paths());
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let serve = move || Ideal::new(listener, change()).expect("a server").serve(&stop).expect("served");
        Self { target, stopped, thread: Some(thread::spawn(serve)) }
    }

    fn sound() -> Self {
        Self::start(|| Box::new(|frames| frames))
    }

    fn run(&self, scenario: &Scenario) -> Outcome {
        drive(scenario, &self.target, &AtomicBool::new(false)).expect("a run")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("it ended");
    }
}

fn scenario(window: Option<usize>, rate: Option<f64>) -> Scenario {
    let group = Group { name: "a".into(), subscribers: 5, tags_each: 1, frame_bytes: 200, window, rate };
    Scenario {
        name: "test".into(),
        about: String::new(),
        figures: vec!["p99_ms".into()],
        seconds: 0.3,
        warmup: 0.05,
        groups: vec![group],
        opening: Opening::default(),
        processes: 1,
        spin: false,
        storm: None,
        churn: None,
        requests: None,
    }
}

/// The findings of a feed whose frames pass through `change` one by one, with their number.
fn spoiled(change: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>> + Clone + Send + 'static) -> Findings {
    let make = move || -> Change {
        let (mut change, mut number) = (change.clone(), 0);
        Box::new(move |frames| {
            let mut changed = |frame| {
                number += 1;
                change(number, frame)
            };
            frames.into_iter().flat_map(&mut changed).collect()
        })
    };
    let outcome = Server::start(make).run(&scenario(None, Some(200.0)));
    assert_eq!(outcome.ok, outcome.findings.total() == 0);
    outcome.findings
}

#[test]
fn a_sound_server_passes_by_window_and_by_rate() {
    let server = Server::sound();
    for (window, rate) in [(Some(1), None), (Some(16), None), (None, Some(200.0))] {
        let outcome = server.run(&scenario(window, rate));
        assert!(outcome.ok, "{}", outcome.findings);
        let deliveries = outcome.curves[0].quantiles.count;
        assert!(deliveries >= 5 && deliveries.is_multiple_of(5), "{deliveries}");
        if rate.is_some() {
            assert_eq!(deliveries, 5 * 60, "the timetable has 60 publications, whatever the machine does");
        }
    }
}

#[test]
fn what_is_lost_repeated_or_swapped_is_told() {
    assert_eq!(spoiled(|_, frame| vec![frame]), Findings::default());
    let lost = spoiled(|number, frame| if number == SPOILED { vec![] } else { vec![frame] });
    assert_eq!((lost.count("lost"), lost.count("never_arrived")), (5, 0), "{lost}");
    let twice = spoiled(|number, frame| if number == SPOILED { vec![frame.clone(), frame] } else { vec![frame] });
    assert_eq!((twice.total(), twice.count("repeated_or_out_of_order")), (5, 5), "{twice}");
    let mut held = None;
    let swapped = spoiled(move |number, frame| match number {
        SPOILED => {
            held = Some(frame);
            vec![]
        }
        _ => std::iter::once(frame).chain(held.take()).collect(),
    });
    assert_eq!((swapped.count("lost"), swapped.count("repeated_or_out_of_order")), (5, 5), "{swapped}");
}

#[test]
fn who_comes_goes_and_asks_is_counted_and_the_steady_ones_miss_nothing() {
    let server = Server::sound();
    let mut passing = Scenario {
        churn: Some(Churn { group: String::new(), connections: 10, rate: 100.0 }),
        storm: Some(Storm { group: "b".into(), connections: 20, after: 0.1 }),
        requests: Some(Requests { users: 3, rate: 100.0, bytes: 100 }),
        ..scenario(None, Some(200.0))
    };
    passing.groups.push(Group {
        name: "b".into(),
        subscribers: 0,
        tags_each: 1,
        frame_bytes: 200,
        window: None,
        rate: Some(50.0),
    });
    let outcome = server.run(&passing);
    assert!(outcome.ok, "{}", outcome.findings);
    let count = |name: &str| outcome.curves.iter().find(|curve| curve.name == name).expect(name).quantiles.count;
    assert_eq!((count("a"), count("requests")), (300, 30));
    assert!(count("handshakes") >= 20 + 30, "{} of the storm and those who come", count("handshakes"));
    assert!(outcome.figure("storm_back_s").is_some_and(|seconds| seconds > 0.0));
    assert_eq!(outcome.connections, 38);
}

#[test]
fn a_run_of_nobody_but_silent_ones_tells_their_handshakes() {
    let outcome = Server::sound().run(&Scenario { seconds: 0.1, ..scenario(None, None) });
    assert!(outcome.ok, "{}", outcome.findings);
    let handshakes = outcome.curves.iter().find(|curve| curve.name == "handshakes").expect("a curve");
    assert_eq!(handshakes.quantiles.count, 5);
    assert!(outcome.figure("kernel_bytes_per_connection").is_some());
    assert!(outcome.figure("p99_ms").is_none());
}

#[test]
fn a_server_that_says_no_and_a_signal_end_a_run() {
    let server = Server::sound();
    let strange =
        Running::at(server.target.server, crate::crowd::dialect::Dialect::Ours { pid: "1".into(), secret: "s".into() });
    let stopped = AtomicBool::new(true);
    assert!(drive(&scenario(None, None), &strange, &stopped).is_err());
}
