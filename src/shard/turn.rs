//! How a long piece of work lets the rest of its core go on.
//!
//! Why a socket: a monoio task that wakes itself goes to the front of the queue, and timers and foreign wakes are seen
//! only when the queue is empty. Whoever passes is woken by a byte that goes once through the kernel, behind
//! everything that was ready before; this holds for both drivers, while a descriptor that is always readable does
//! not yield at all under epoll.

use std::{
    cell::RefCell,
    io::{self, Write},
    os::unix::net::UnixStream as StdStream,
    rc::Rc,
    task::{Poll, Waker},
};

use monoio::{io::AsyncReadRent, net::UnixStream};

/// Ends a turn of a task.
#[derive(Debug)]
pub struct Turn {
    waiting: Rc<RefCell<Vec<Waker>>>,
    bell: StdStream,
}

impl Turn {
    /// A new one; needs a running monoio runtime.
    pub fn new() -> io::Result<Self> {
        let (bell, heard) = StdStream::pair()?;
        bell.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let waiting = Rc::<RefCell<Vec<Waker>>>::default();
        monoio::spawn(wake_up(UnixStream::from_std(heard)?, waiting.clone()));
        Ok(Self { waiting, bell })
    }

    /// Lets other tasks, input and output and timers run before it returns, and other threads of the node that share the
    /// core's CPU: under a real-time policy they do not get it otherwise while the core has work.
    pub async fn pass(&self) {
        std::thread::yield_now();
        let mut passed = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut passed, true) {
                return Poll::Ready(());
            }
            let first = self.waiting.borrow().is_empty();
            self.waiting.borrow_mut().push(context.waker().clone());
            // At most one byte is under way, so there is always room for it.
            if first && (&self.bell).write_all(b"!").is_err() {
                self.waiting.take().into_iter().for_each(Waker::wake);
            }
            Poll::Pending
        })
        .await;
    }
}

/// Wakes all that wait, each time the byte comes round; ends with the [`Turn`].
async fn wake_up(mut heard: UnixStream, waiting: Rc<RefCell<Vec<Waker>>>) {
    let mut buffer = vec![0; 16];
    loop {
        let (read, back) = heard.read(buffer).await;
        buffer = back;
        if !matches!(read, Ok(1..)) {
            return;
        }
        waiting.take().into_iter().for_each(Waker::wake);
    }
}
