//! An order that one thread gives and another waits for.
//!
//! Invariant: once given it stays given.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

/// See the module. One waits; any number may give it.
#[derive(Clone, Debug, Default)]
pub struct Order(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    is_given: AtomicBool,
    waker: AtomicWaker,
}

impl Order {
    /// Gives it.
    pub fn give(&self) {
        self.0.is_given.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Waits until it is given.
    pub async fn given(&self) {
        std::future::poll_fn(|context| {
            self.0.waker.register(context.waker());
            if self.0.is_given.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
