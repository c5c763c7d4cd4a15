//! Keys of what the node tells about the way of pushes.

use super::{
    keys::{Key, Section},
    value::{Kind, Unit},
};

pub(super) static SECTIONS: &[Section] = &[Section {
    title: "Latency and traces",
    limits: false,
    keys: &[
        Key::word("stage_latency", "`true`, `false`", |c| &mut c.stage_latency)
            .is("Whether the age of pushes is measured at each stage of their way (`ws_stage_latency_seconds`, `/debug/latency`)."),
        Key::new("otlp_endpoint", Kind::Text("http:// or https:// address with a path", is_endpoint), |c| &mut c.otlp_endpoint)
            .is("Where traces go, OTLP over HTTP: `http://collector:4318/v1/traces`. Without it there are none."),
        Key::number("trace_one_in", Unit::Of("pushes"), 1, 1_000_000_000, |c| &mut c.trace_one_in)
            .is("One push in so many gets a trace, and so does each that comes with a sampled `traceparent`.")
            .extremes("Traces take more of the node than pushes do.", "The push that one looks for has none."),
    ],
}];

fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let (host, path) = rest.and_then(|rest| rest.split_once('/')).unwrap_or_default();
    // Credentials in an address would be shown with it.
    let is_plain = |c: char| c.is_ascii_graphic() && !"@?#".contains(c);
    !host.is_empty() && !path.is_empty() && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::is_endpoint;

    #[test]
    fn endpoints_are_checked() {
        for good in ["http://127.0.0.1:4318/v1/traces", "https://otlp.example.com/v1/traces"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in
            ["", "127.0.0.1:4318", "http://a", "http://a/", "http:///b", "ftp://a/b", "http://u:p@a/b", "http://a/b?c"]
        {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}
