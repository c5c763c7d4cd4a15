//! A flame graph: the width of a function is how often it was seen, its callers are below it.

use std::collections::BTreeMap;

use inferno::flamegraph::{self, Options};

use super::{collect::Gathered, symbols::Symbols};

/// Draws the samples as SVG.
pub fn draw(gathered: &Gathered, symbols: &mut Symbols) -> std::io::Result<Vec<u8>> {
    let lines = fold(gathered, symbols);
    let mut options = Options::default();
    options.title = format!("CPU time of ws-cluster in {:.1} s", gathered.lasted.as_secs_f64());
    options.count_name = "samples".to_owned();
    let mut svg = Vec::new();
    let drawn = flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg);
    // Of no samples there is a picture that says so, and an error.
    if svg.is_empty() { drawn.map(|()| svg).map_err(std::io::Error::other) } else { Ok(svg) }
}

/// `thread;outermost;…;innermost count`, sorted.
fn fold(gathered: &Gathered, symbols: &mut Symbols) -> Vec<String> {
    let mut folded: BTreeMap<String, u64> = BTreeMap::new();
    for ((tid, stack), count) in &gathered.stacks {
        let mut line = in_one_word(&gathered.name(*tid));
        for address in stack.iter().rev() {
            for function in symbols.at(*address).iter().rev() {
                line.push(';');
                line.push_str(&in_one_word(&function.name));
            }
        }
        *folded.entry(line).or_default() += count;
    }
    folded.into_iter().map(|(line, count)| format!("{line} {count}")).collect()
}

/// Semicolons part the functions of a line; Rust has them in the names of arrays.
fn in_one_word(name: &str) -> String {
    name.replace(';', ",").replace('\n', " ")
}
