//! The bounded channel into a core (or into the exchange) and its wake-up, and what a core waits for.
//!
//! Method: senders push onto a vector under a short lock, the receiver swaps the whole vector out; one wake a batch.
//! Invariants: order is kept; a message that was taken in is never dropped while the receiver lives; only
//! [`Mailbox::offer`] can refuse.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;

use crate::model::{FromCore, Refusal, Reply, Ticket};

#[expect(clippy::disallowed_types, reason = "held for a push or a swap of a vector, never across an await")]
type Lock<T> = std::sync::Mutex<T>;

/// An emptied queue with room for more messages than this gives it back.
const SPARE_MESSAGES_MAX: usize = 128;

/// A queue from many threads to one.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Lock<Vec<T>>,
    receiver: AtomicWaker,
    /// Senders that wait for room.
    senders: Lock<Vec<Waker>>,
    messages_max: usize,
}

/// The mailbox is full; the message comes back.
#[derive(Debug)]
pub struct Full<T>(pub T);

impl<T> Mailbox<T> {
    /// A mailbox that refuses offers beyond `messages_max` waiting messages.
    pub fn new(messages_max: usize) -> Arc<Self> {
        Arc::new(Self { queue: Lock::default(), receiver: AtomicWaker::new(), senders: Lock::default(), messages_max })
    }

    /// Takes a message in if there is room.
    pub fn offer(&self, message: T) -> Result<(), Full<T>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= self.messages_max {
            return Err(Full(message));
        }
        queue.push(message);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.receiver.wake();
        }
        Ok(())
    }

    /// Takes messages in whatever waits already, in order, with one wake. For what must not be lost and is
    /// bounded by its source (a connection's opening and closing, or a sender that awaited [`Mailbox::room`]).
    pub fn send_all(&self, messages: impl IntoIterator<Item = T>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.extend(messages);
        let wake = was_empty && !queue.is_empty();
        drop(queue);
        if wake {
            self.receiver.wake();
        }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether an offer would be refused.
    pub fn is_full(&self) -> bool {
        self.len() >= self.messages_max
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until fewer than the bound wait.
    pub async fn room(&self) {
        std::future::poll_fn(|context| {
            if self.len() < self.messages_max {
                return Poll::Ready(());
            }
            self.senders.lock().unwrap_or_else(PoisonError::into_inner).push(context.waker().clone());
            if self.len() < self.messages_max { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits for messages and swaps all of them into `batch`, which must be empty.
    pub async fn receive(&self, batch: &mut Vec<T>) {
        debug_assert!(batch.is_empty(), "what is left in a batch would be lost");
        std::future::poll_fn(|context| self.poll_receive(context, batch)).await;
    }

    fn poll_receive(&self, context: &mut Context<'_>, batch: &mut Vec<T>) -> Poll<()> {
        if self.swap(batch) {
            return Poll::Ready(());
        }
        self.receiver.register(context.waker());
        if self.swap(batch) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Swaps what waits into `batch`, which must be empty; whether there was anything.
    pub fn swap(&self, batch: &mut Vec<T>) -> bool {
        // What a storm has needed is not kept for ever.
        batch.shrink_to(SPARE_MESSAGES_MAX);
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), batch);
        if batch.is_empty() {
            return false;
        }
        let senders = std::mem::take(&mut *self.senders.lock().unwrap_or_else(PoisonError::into_inner));
        senders.into_iter().for_each(Waker::wake);
        true
    }
}

/// A core's way to the exchange: sends, and keeps the questions that wait for an answer.
#[derive(Clone, Debug)]
pub struct ExchangeLink {
    core: u8,
    outgoing: Arc<Mailbox<FromCore>>,
    waiting: Rc<RefCell<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    questions: HashMap<u64, Question>,
}

enum Question {
    Open(Option<Waker>),
    Answered(Reply),
    /// Carried out with the answer as soon as that is here.
    Then(Box<dyn FnOnce(Reply)>),
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Open(_) => f.write_str("Open"),
            Question::Answered(reply) => f.debug_tuple("Answered").field(reply).finish(),
            Question::Then(_) => f.write_str("Then"),
        }
    }
}

impl ExchangeLink {
    /// The link of `core` over `outgoing`.
    pub fn new(core: u8, outgoing: Arc<Mailbox<FromCore>>) -> Self {
        Self { core, outgoing, waiting: Rc::default() }
    }

    /// The core's number.
    pub fn core(&self) -> u8 {
        self.core
    }

    /// Sends what must not be lost (see [`Mailbox::send_all`]).
    pub fn send(&self, message: FromCore) {
        self.outgoing.send_all([message]);
    }

    /// Sends if there is room.
    pub fn offer(&self, message: FromCore) -> Result<(), Refusal> {
        self.outgoing.offer(message).map_err(|Full(_)| Refusal::Overloaded)
    }

    /// Asks the exchange and waits for its answer. A question that is dropped while it waits is forgotten.
    pub async fn ask(&self, question: impl FnOnce(Ticket) -> FromCore) -> Reply {
        match self.begin(question) {
            Ok(pending) => pending.await,
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    /// Asks the exchange at once; the answer is awaited apart.
    pub fn begin(&self, question: impl FnOnce(Ticket) -> FromCore) -> Result<Pending, Refusal> {
        let number = self.pose(question, Question::Open(None))?;
        Ok(Pending { waiting: self.waiting.clone(), number })
    }

    /// Asks the exchange; `then` gets the answer when its turn comes among all that the exchange says to this core, so
    /// that it is in order with publications.
    pub fn ask_then(
        &self,
        question: impl FnOnce(Ticket) -> FromCore,
        then: impl FnOnce(Reply) + 'static,
    ) -> Result<(), Refusal> {
        self.pose(question, Question::Then(Box::new(then))).map(drop)
    }

    fn pose(&self, question: impl FnOnce(Ticket) -> FromCore, waits: Question) -> Result<u64, Refusal> {
        let number = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.next += 1;
            waiting.next
        };
        self.offer(question(Ticket { core: self.core, number }))?;
        // The answer comes through this core's own inbox, so it cannot be here before this.
        self.waiting.borrow_mut().questions.insert(number, waits);
        Ok(number)
    }

    /// Hands an answer to the question that waits for it.
    pub fn answer(&self, ticket: Ticket, reply: Reply) {
        let question = self.waiting.borrow_mut().questions.remove(&ticket.number);
        let waker = match question {
            None => return,
            Some(Question::Then(then)) => return then(reply),
            Some(Question::Open(waker)) => waker,
            Some(Question::Answered(_)) => None,
        };
        self.waiting.borrow_mut().questions.insert(ticket.number, Question::Answered(reply));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Waiting {
    fn poll(&mut self, number: u64, context: &mut Context<'_>) -> Poll<Reply> {
        match self.questions.remove(&number) {
            Some(Question::Answered(reply)) => Poll::Ready(reply),
            _ => {
                self.questions.insert(number, Question::Open(Some(context.waker().clone())));
                Poll::Pending
            }
        }
    }
}

/// An answer that is to come; dropped, the question is forgotten.
#[derive(Debug)]
pub struct Pending {
    waiting: Rc<RefCell<Waiting>>,
    number: u64,
}

impl Future for Pending {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        self.waiting.borrow_mut().poll(self.number, context)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.borrow_mut().questions.remove(&self.number);
    }
}
