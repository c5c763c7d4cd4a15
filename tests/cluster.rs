//! What a node promises, seen from outside: real processes, real sockets, a real Redis, and clients of their own.
//!
//! Method: each behaviour is one function over a [`support::Cluster`]; `everywhere!` runs it on one node with the
//! embedded queue and on two nodes over Redis, with io_uring and with epoll. What depends on one node alone runs on
//! one, with both drivers (`on_one_node!`). A test of two nodes talks to both: `cluster.a()` and `cluster.b()`.

mod support;

/// Makes tests of behaviours, one for every column of the matrix.
macro_rules! everywhere {
    ($($test:ident),+ $(,)?) => {
        mod one_node { $(#[test] fn $test() { crate::support::run(crate::support::Setup::ONE, super::$test); })+ }
        mod two_nodes { $(#[test] fn $test() { crate::support::run(crate::support::Setup::TWO, super::$test); })+ }
        mod one_node_epoll {
            $(#[test] fn $test() { crate::support::run(crate::support::Setup::ONE_EPOLL, super::$test); })+
        }
        mod two_nodes_epoll {
            $(#[test] fn $test() { crate::support::run(crate::support::Setup::TWO_EPOLL, super::$test); })+
        }
    };
}

/// Makes tests of behaviours of a single node, one for every driver.
macro_rules! on_one_node {
    ($($test:ident),+ $(,)?) => {
        mod uring { $(#[test] fn $test() { crate::support::run(crate::support::Setup::ONE, super::$test); })+ }
        mod epoll { $(#[test] fn $test() { crate::support::run(crate::support::Setup::ONE_EPOLL, super::$test); })+ }
    };
}

mod blackbox {
    mod access;
    mod audience;
    mod bytes;
    mod checks;
    mod connection;
    mod control;
    mod credentials;
    mod deflate;
    mod drain;
    mod frames;
    mod handshake;
    mod latency;
    mod latest;
    mod life;
    mod online;
    mod presence;
    mod projects;
    mod push_forms;
    mod rates;
    mod requests;
    mod retained;
    mod route;
    mod shared_port;
    mod slow;
    mod stalled;
    mod syscalls;
    mod tags;
    mod tokens;
    mod traces;
    mod writes;
}
