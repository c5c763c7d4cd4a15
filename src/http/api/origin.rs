//! The origin of the node's own pages, which is the only foreign one whose scripts may read what the API says (CORS).
//!
//! The pages are on another port than the API, and that is another origin to a browser. A call proves itself by what
//! is signed and never by where it comes from, so this opens nothing that a sign does not: no credentials of the browser
//! (cookies, client certificates) are asked for, and `*` is never said.
//!
//! Invariants: pure; without pages nothing here is said; what depends on the request's origin says so (`Vary`).

use std::net::SocketAddr;

use http::{
    HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use crate::http::message::{Head, Response};

/// Where the node's own pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageOrigin {
    listener: SocketAddr,
}

impl PageOrigin {
    /// Of pages that are served on this listener.
    pub fn new(listener: SocketAddr) -> Self {
        Self { listener }
    }

    /// Answers a browser that asks whether a script of the pages may make a call; nothing for any other request.
    pub(super) fn preflight(self, head: &Head, methods: &'static str) -> Option<Response> {
        let asks = head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        self.own(head).filter(|_| asks)?;
        let response = Response::success("null")
            .with(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods))
            .with(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"))
            .with(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(response)
    }

    /// Lets a script of the pages read the answer.
    pub(super) fn open(self, head: &Head, response: Response) -> Response {
        let response = response.with(VARY, HeaderValue::from_static("Origin"));
        match self.own(head) {
            Some(origin) => response
                .with(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())
                .with(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after, allow")),
            None => response,
        }
    }

    /// The request's origin, if it is that of the pages.
    fn own(self, head: &Head) -> Option<&HeaderValue> {
        let origin = head.headers.get(ORIGIN)?;
        let authority = origin.to_str().ok()?.strip_prefix("http://")?;
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, 80),
        };
        (port == self.listener.port() && self.is_reached_as(host, head.host())).then_some(origin)
    }

    /// Whether the listener is reached under a host's name; one that listens everywhere is reached as the API is.
    fn is_reached_as(self, host: &str, api: Option<&str>) -> bool {
        let ip = self.listener.ip();
        let literal = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        match () {
            () if ip.is_unspecified() => local || api == Some(host),
            () if ip.is_loopback() => host == literal || host == "localhost",
            () => host == literal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderName, Uri, header::HOST};

    use super::*;

    fn head(method: Method, headers: &[(HeaderName, &'static str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Head { method, uri: Uri::default(), headers, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    fn is_own(listener: &str, origin: &'static str, host: &'static str) -> bool {
        let origins = PageOrigin::new(listener.parse().expect("an address"));
        let head = head(Method::GET, &[(ORIGIN, origin), (HOST, host)]);
        let response = origins.open(&head, Response::success("1"));
        assert!(response.headers.iter().any(|(name, value)| name == VARY && value == "Origin"));
        let told = response.headers.iter().find(|(name, _)| name == ACCESS_CONTROL_ALLOW_ORIGIN);
        assert!(told.is_none_or(|(_, value)| value == origin));
        told.is_some()
    }

    #[test]
    fn the_pages_origin_alone_is_told_that_it_may_read() {
        let local = "127.0.0.1:9092";
        assert!(is_own(local, "http://127.0.0.1:9092", "127.0.0.1:8912"));
        assert!(is_own(local, "http://localhost:9092", "127.0.0.1:8912"));
        assert!(is_own("[::1]:9092", "http://[::1]:9092", "[::1]:8912"));
        assert!(is_own("10.0.0.5:80", "http://10.0.0.5", "10.0.0.5:8912"));
        for other in [
            "http://127.0.0.1:9093",
            "http://127.0.0.1",
            "https://127.0.0.1:9092",
            "http://127.0.0.1:9092.example.com",
            "http://127.0.0.1:9092/",
            "http://a@127.0.0.1:9092",
            "http://example.com:9092",
            "http://10.0.0.5:9092",
            "http://[::1]",
            "http://",
            "null",
            "*",
            "",
        ] {
            assert!(!is_own(local, other, "example.com:8912"), "{other}");
        }
    }

    #[test]
    fn pages_that_listen_everywhere_are_reached_as_the_api_is() {
        for listener in ["0.0.0.0:9092", "[::]:9092"] {
            assert!(is_own(listener, "http://node.internal:9092", "node.internal:8912"));
            assert!(is_own(listener, "http://localhost:9092", "127.0.0.1:8912"));
            assert!(!is_own(listener, "http://node.internal:9093", "node.internal:8912"));
            assert!(!is_own(listener, "http://example.com:9092", "node.internal:8912"));
        }
    }

    #[test]
    fn only_a_browser_that_asks_is_answered_before_its_call() {
        let origins = PageOrigin::new("127.0.0.1:9092".parse().expect("an address"));
        let own = (ORIGIN, "http://127.0.0.1:9092");
        let asks = (ACCESS_CONTROL_REQUEST_METHOD, "POST");
        let answer = |method, headers: &[_]| origins.preflight(&head(method, headers), "POST");
        let response = answer(Method::OPTIONS, &[own.clone(), asks.clone()]).expect("an answer");
        assert_eq!(response.status, 200);
        assert!(response.headers.iter().any(|(name, value)| name == ACCESS_CONTROL_ALLOW_METHODS && value == "POST"));
        assert!(answer(Method::OPTIONS, std::slice::from_ref(&own)).is_none());
        assert!(answer(Method::POST, &[own, asks.clone()]).is_none());
        assert!(answer(Method::OPTIONS, &[(ORIGIN, "http://127.0.0.1:1"), asks]).is_none());
    }
}
