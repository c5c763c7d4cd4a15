//! Failures on order, for the tests of what becomes of them. Only the feature `plain-pubsub` builds it, which no product
//! has.

/// Fails if `text` says so: `!panic-connection …` in the task of its connection, `!panic-core …` beside it, where nothing
/// catches it. Either with the text in the panic's message, which must never be seen outside.
pub(super) fn obey(text: &str) {
    if text.starts_with("!panic-connection ") {
        panic!("told to by {text}");
    }
    if text.starts_with("!panic-core ") {
        let text = text.to_owned();
        monoio::spawn(async move { panic!("told to by {text}") });
    }
}
