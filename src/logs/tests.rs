//! Events as they come out of the buffer as lines. Method: a subscriber of the test's own thread.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;
use tracing::subscriber::with_default;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use super::{buffer::Buffer, layer::Lines, line::Form};
use crate::{
    limits::LOG_LINE_BYTES_MAX,
    metrics::{Count, Counters},
};

fn lines(form: Form, log: impl FnOnce()) -> (String, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    let buffer = Arc::new(Buffer::new(1 << 20, form, counters.clone()));
    with_default(Registry::default().with(Lines { form, buffer: buffer.clone() }), log);
    let mut chunks = VecDeque::new();
    buffer.take(&mut chunks);
    (String::from_utf8(Vec::from(chunks).concat()).expect("UTF-8"), counters)
}

fn log() {
    let error = std::io::Error::other("line one\nline two \"quoted\" \\ \x1b[31m");
    tracing::error!(%error, count = 3, ratio = 0.5, ok = true, name = "ann", empty = "", "failed to {}", "try");
    tracing::info!(target: "other", sign = "hush", "quiet");
}

#[test]
fn a_line_for_people_is_one_line_whatever_is_in_its_values() {
    let (text, counters) = lines(Form::Human { target: true }, log);
    let (first, second) = text.trim_end().split_once('\n').expect("two lines");
    assert_eq!(
        first.split_once("Z ").expect("a time").1,
        r#"ERROR ws_cluster::logs::tests: failed to try error="line one\nline two \"quoted\" \ \u{1b}[31m" count=3 ratio=0.5 ok=true name=ann empty="""#
    );
    assert!(second.ends_with("  INFO other: quiet sign=***"), "{second}");
    assert_eq!((counters.get(Count::LinesError), counters.get(Count::LinesInfo)), (1, 1));
    let (text, _) = lines(Form::Human { target: false }, || tracing::debug!("bare"));
    assert!(
        text.ends_with("Z DEBUG bare\n") && text.len() == "2026-11-27T00:12:33.987654Z DEBUG bare\n".len(),
        "{text}"
    );
}

#[test]
fn a_json_line_is_one_object_with_the_same_in_it() {
    let (text, _) = lines(Form::Json { node: 7 }, log);
    let read: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((&read[0]["level"], &read[0]["target"]), (&"ERROR".into(), &"ws_cluster::logs::tests".into()));
    assert_eq!(read[0]["node"], 7);
    let expected = serde_json::json!({
        "message": "failed to try",
        "error": "line one\\nline two \"quoted\" \\ \\u{1b}[31m",
        "count": 3,
        "ratio": 0.5,
        "ok": true,
        "name": "ann",
        "empty": "",
    });
    assert_eq!(read[0]["fields"], expected);
    assert_eq!(read[1]["fields"]["sign"], "***");
    let (text, _) = lines(Form::Json { node: 7 }, || tracing::info!(x = f64::NAN, "{}", "\u{7}"));
    let read: Value = serde_json::from_str(&text).expect("an object");
    assert_eq!(read["fields"], serde_json::json!({"message": "\\u{7}", "x": "NaN"}));
}

#[test]
fn values_and_lines_are_bounded() {
    let long = "x".repeat(100_000);
    for form in [Form::Human { target: true }, Form::Json { node: 1 }] {
        let (text, _) = lines(form, || tracing::info!(long, debug = ?long, "{long}"));
        assert!(text.len() < 3000, "{} bytes", text.len());
        // A control character takes eight bytes when it is escaped.
        let control = "\u{10ffff}\u{85}".repeat(20_000);
        let (text, _) = lines(form, || {
            tracing::info!(
                a = control,
                b = control,
                c = control,
                d = control,
                e = control,
                f = control,
                g = control,
                h = control,
                i = control,
                j = control,
                k = control,
                l = control,
                m = control,
                n = control,
                o = control,
                p = control,
                "{control}"
            );
        });
        assert!(text.len() <= LOG_LINE_BYTES_MAX && text.ends_with('\n') && text.lines().count() == 1);
    }
}
