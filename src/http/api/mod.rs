//! The routes of the HTTP listener: push, batch, kick, who is online, a tag's publications, health.
//!
//! The way of a call: [`route`] says what it is, [`throttle`] who has to wait, [`call`] reads it and judges its
//! credentials, [`push`] and [`read`] ask the exchange, [`answer`] writes what it said.
//!
//! Invariants: a push is answered only after the queue has accepted it; nothing is read from a body before its
//! call's credentials were judged; the project is the one that signed, whatever a body says; no answer or log line
//! holds a sign, a secret or a payload that was pushed.

mod answer;
mod call;
pub mod openapi;
mod origin;
mod push;
mod read;
mod route;
mod throttle;

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use http::StatusCode;
use monoio::time::timeout;

pub use self::origin::PageOrigin;
use self::{
    call::Call,
    route::{NOT_FOUND, Route},
    throttle::Throttle,
};
use super::{
    demo::Demo,
    message::{Fault, Head, Request, Response, health_response},
    server::{Handler, Preview},
};
use crate::{
    clock,
    health::{Health, State},
    inbox::ExchangeLink,
    limits::Limits,
    metrics::{Count, Counters, requests::Url},
    model::{FromCore, Projects, Refusal, Reply, Ticket},
    traces::Stamper,
};

/// The API of one core.
pub struct Api {
    link: ExchangeLink,
    projects: RefCell<Projects>,
    limits: RefCell<Rc<Limits>>,
    counters: Arc<Counters>,
    health: Arc<Health>,
    throttle: RefCell<Throttle>,
    stamper: Stamper,
    pages: Option<PageOrigin>,
    demo: Option<Demo>,
}

impl Api {
    /// The API of the core whose questions go through `link` and whose pushes `stamper` stamps.
    pub fn new(
        link: ExchangeLink,
        projects: Projects,
        limits: Limits,
        counters: Arc<Counters>,
        health: Arc<Health>,
        stamper: Stamper,
    ) -> Self {
        let throttle = RefCell::new(Throttle::new(limits.opening.failed_credentials_per_minute));
        let (projects, limits) = (RefCell::new(projects), RefCell::new(Rc::new(limits)));
        Self { link, projects, limits, counters, health, throttle, stamper, pages: None, demo: None }
    }

    /// Lets scripts of these pages read its answers.
    #[must_use]
    pub fn open_to(self, pages: Option<PageOrigin>) -> Self {
        Self { pages, ..self }
    }

    /// The same with the demo page, if there is one.
    #[must_use]
    pub fn with_demo(self, demo: Option<Demo>) -> Self {
        Self { demo, ..self }
    }

    /// From now on these projects may call, within these bounds.
    pub fn reload(&self, projects: Projects, limits: &Limits) {
        self.throttle.borrow_mut().set_failures_max(limits.opening.failed_credentials_per_minute);
        self.projects.replace(projects);
        self.limits.replace(Rc::new(limits.clone()));
    }

    fn limits(&self) -> Rc<Limits> {
        self.limits.borrow().clone()
    }

    async fn answer(&self, route: Route, request: &Request) -> Result<Response, Fault> {
        let call = Call::read(route, request)?;
        let pid = self.admit(&call, request.head.peer)?;
        match route {
            Route::Push => self.push(&pid, &call, &request.head).await,
            Route::PushBatch => self.push_batch(&pid, &call, &request.head).await,
            Route::Kick => self.kick(&pid, &call).await,
            Route::Online => self.online(pid, &call).await,
            Route::Tag => self.tag(pid, request.head.path()).await,
            Route::Health(_) => Err(NOT_FOUND),
        }
    }

    /// Asks the exchange, and waits no longer than the bound.
    async fn ask(&self, question: impl FnOnce(Ticket) -> FromCore) -> Result<Reply, Fault> {
        match timeout(self.limits().http.answer_timeout, self.link.ask(question)).await {
            Ok(Reply::Refused(refusal)) => Err(refused(refusal)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(refused(Refusal::Unknown)),
        }
    }

    fn wait_of(&self, peer: IpAddr) -> Option<Response> {
        let wait = self.throttle.borrow().wait(peer, clock::now())?;
        Some(Response::from(TOO_MANY_FAILURES).retry_after(wait.as_secs() + 1))
    }
}

const TOO_MANY_FAILURES: Fault =
    Fault::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", "too many calls with bad credentials; wait");
const MISPLACED_REPLY: Fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the call failed");

/// Nothing was taken, and the peer should try again.
fn refused(refusal: Refusal) -> Fault {
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, refusal.err(), refusal.message())
}

impl Api {
    /// What can be said before the body is read.
    fn judge(&self, head: &Head) -> Preview {
        if let Some(preview) = self.demo.as_ref().and_then(|demo| demo.preview(head)) {
            return preview;
        }
        let Some(route) = Route::of(head.path()) else { return Preview::answer(Url::Other, NOT_FOUND) };
        let url = route.url();
        if let Some(response) = self.pages.and_then(|pages| pages.preflight(head, route.methods())) {
            return Preview::answer(url, response);
        }
        if let Err(response) = route.check_method(&head.method) {
            return Preview::answer(url, response);
        }
        if let Route::Health(_) = route {
            return Preview::accept_always(url);
        }
        if let Some(response) = self.wait_of(head.peer) {
            return Preview::answer(url, response);
        }
        match route.body_kind(head) {
            Ok(_) => Preview::accept(url),
            Err(fault) => Preview::answer(url, fault),
        }
    }

    async fn respond(&self, request: &Request) -> Response {
        if let Some(response) = self.demo.as_ref().and_then(|demo| demo.answer(&request.head, clock::unix_now())) {
            return response;
        }
        let path = request.head.path();
        let Some(route) = Route::of(path) else { return NOT_FOUND.into() };
        if let Route::Health(_) = route {
            return health_response(&self.health, path).unwrap_or_else(|| NOT_FOUND.into());
        }
        self.answer(route, request).await.unwrap_or_else(|fault| {
            let pushes = matches!(route, Route::Push | Route::PushBatch);
            if pushes && fault.status.is_client_error() {
                self.counters.inc(Count::PushesInvalid);
            }
            fault.into()
        })
    }

    fn open(&self, head: &Head, response: Response) -> Response {
        match self.pages {
            Some(pages) => pages.open(head, response),
            None => response,
        }
    }
}

impl Handler for Api {
    fn preview(&self, head: &Head) -> Preview {
        let preview = self.judge(head);
        Preview { answer: preview.answer.map(|response| self.open(head, response)), ..preview }
    }

    async fn handle(&self, request: Request) -> Response {
        let response = self.respond(&request).await;
        self.open(&request.head, response)
    }

    fn is_leaving(&self) -> bool {
        self.health.state() == State::Draining
    }
}
