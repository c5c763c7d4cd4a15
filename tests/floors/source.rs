//! A source file as the floors test sees it: code without comments and literals, its paths and its functions.
//!
//! No full parser: enough of the lexer that a brace in a string or a `crate::` in a comment misleads nobody.

use std::ops::Range;

/// One source file, relative to its crate's `src`.
pub struct Source {
    /// `protocol/jwt.rs`
    pub path: String,
    /// As it stands in the file.
    pub text: String,
    code: String,
    product: String,
}

/// A path that the code names, from its first segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Line, from 1.
    pub line: usize,
    /// `["crate", "model", "Pid"]`
    pub segments: Vec<String>,
}

/// A function with a body.
#[derive(Debug)]
pub struct Function {
    /// Line of its `fn`, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Lines with code in them, signature included.
    pub lines: usize,
    /// Whether an attribute before it names the lint `too_many_lines`.
    pub excused: bool,
}

impl Source {
    /// Takes a file apart. With `test_only` nothing in it counts as product code.
    pub fn new(path: &str, text: &str, test_only: bool) -> Self {
        let code = blank_literals(text);
        let product = if test_only { String::new() } else { blank_test_modules(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// The top-level module that the file belongs to; the file's name for `main.rs` and `lib.rs`.
    pub fn module(&self) -> String {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }

    /// How many modules deep the file's own module is: 1 for `hub/mod.rs`, 2 for `hub/session.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// Every top-level module that the file names through `crate::` or enough `super::`, tests included.
    pub fn modules_named(&self) -> Vec<(usize, String)> {
        let own_depth = self.depth();
        let to_module = |named: Named| {
            let supers = named.segments.iter().take_while(|segment| *segment == "super").count();
            let at = match named.segments[0].as_str() {
                "crate" => 1,
                "super" if supers >= own_depth => supers,
                _ => return None,
            };
            named.segments.get(at).map(|module| (named.line, module.clone()))
        };
        let mut named: Vec<_> = paths(&self.code).into_iter().filter_map(to_module).collect();
        named.dedup();
        named
    }

    /// Every first segment of a path in product code: outside crates, local names and keywords alike.
    pub fn roots_named(&self) -> Vec<(usize, String)> {
        let mut roots: Vec<_> =
            paths(&self.product).into_iter().map(|named| (named.line, named.segments[0].clone())).collect();
        roots.dedup();
        roots
    }

    /// The names in `#[cfg(test)] mod name;`.
    pub fn test_modules(&self) -> Vec<String> {
        let declared = |part: &str| {
            let name = part.trim_start().strip_prefix("mod ")?;
            name.find(|c: char| !is_word(c)).filter(|at| name[*at..].starts_with(';')).map(|at| name[..at].to_owned())
        };
        self.code.split("#[cfg(test)]").skip(1).filter_map(declared).collect()
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        words(&self.code)
            .filter(|word| self.code[word.clone()] == *"fn")
            .filter_map(|word| self.function(word))
            .collect()
    }

    fn function(&self, keyword: Range<usize>) -> Option<Function> {
        let rest = &self.code[keyword.end..];
        let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
        let opening = body_start(rest).filter(|_| !name.is_empty())?;
        let end = keyword.end + closing(rest, opening)?;
        let lines = self.code[keyword.start..end].lines().filter(|line| !line.trim().is_empty()).count();
        let before = &self.code[..keyword.start];
        let item = before.rfind(['{', '}', ';']).map_or(0, |at| at + 1);
        let excused = before[item..].contains("too_many_lines");
        Some(Function { line: line_of(&self.code, keyword.start), name, lines, excused })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The places of all identifiers and keywords.
fn words(code: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        at = code[start..].find(|c| !is_word(c)).map_or(code.len(), |length| start + length);
        Some(start..at)
    })
}

/// Where the body of a function begins in what follows its `fn`; none if it ends in `;` first.
fn body_start(rest: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The end (exclusive) of the block that opens at `opening`.
fn closing(code: &str, opening: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code[opening..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(opening + at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Every path in the code: those of `use` trees, written out, and those that stand in expressions and types.
fn paths(code: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut skip_to = 0;
    for word in words(code) {
        if word.start < skip_to {
            continue;
        }
        let end = if code[word.clone()] == *"use" {
            let end = code[word.end..].find(';').map_or(code.len(), |at| word.end + at);
            use_tree(code, word.end..end, &[], &mut found);
            end
        } else {
            let Some((end, named)) = plain_path(code, word) else { continue };
            found.push(named);
            end
        };
        skip_to = end;
    }
    found
}

/// Writes out one `use` tree below `prefix`.
fn use_tree(code: &str, span: Range<usize>, prefix: &[String], found: &mut Vec<Named>) {
    for part in split_level(code, span) {
        let text = &code[part.clone()];
        let (head, group) = match text.find('{') {
            Some(at) => (&text[..at], closing(text, at).map(|end| part.start + at + 1..part.start + end - 1)),
            None => (text, None),
        };
        let mut segments = prefix.to_vec();
        let head = head.split(" as ").next().unwrap_or_default();
        segments.extend(head.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned));
        match group {
            Some(inside) => use_tree(code, inside, &segments, found),
            None if segments.is_empty() => {}
            None => {
                let start = part.start + text.len() - text.trim_start().len();
                found.push(Named { line: line_of(code, start), segments });
            }
        }
    }
}

/// Splits at the commas that stand in no braces.
fn split_level(code: &str, span: Range<usize>) -> Vec<Range<usize>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, span.start);
    for (at, c) in code[span.clone()].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(start..span.start + at);
                start = span.start + at + 1;
            }
            _ => {}
        }
    }
    parts.push(start..span.end);
    parts
}

/// The path that starts with this word, if it starts one: `a::b` and not the `b` of it.
fn plain_path(code: &str, word: Range<usize>) -> Option<(usize, Named)> {
    let before = code[..word.start].trim_end();
    if before.ends_with("::") && !before.ends_with("<::") || before.ends_with(['.', '$']) {
        return None;
    }
    let mut segments = vec![code[word.clone()].to_owned()];
    let mut end = word.end;
    while let Some(rest) = code[end..].trim_start().strip_prefix("::") {
        let rest = rest.trim_start();
        let segment: String = rest.chars().take_while(|c| is_word(*c)).collect();
        if segment.is_empty() {
            break;
        }
        end = code.len() - rest.len() + segment.len();
        segments.push(segment);
    }
    (segments.len() > 1).then(|| (end, Named { line: line_of(code, word.start), segments }))
}

/// Blanks the bodies of `#[cfg(test)] mod name { … }`.
fn blank_test_modules(code: &str) -> String {
    let mut product = code.to_owned();
    let mut from = 0;
    while let Some(at) = product[from..].find("#[cfg(test)]").map(|at| from + at) {
        from = at + 1;
        let Some(opening) = body_start(&product[at + 12..]).map(|offset| at + 12 + offset) else { continue };
        let Some(end) = closing(&product, opening) else { continue };
        let blank: String = product[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        product.replace_range(at..end, &blank);
    }
    product
}

/// Blanks comments, strings and characters, keeping every line where it is. What it returns is ASCII.
fn blank_literals(text: &str) -> String {
    let ascii: Vec<u8> = text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect();
    let mut out = ascii.clone();
    let mut at = 0;
    while at < ascii.len() {
        match literal_end(&ascii, at) {
            Some(end) => {
                out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The end of the comment or literal that begins at `at`, if one does.
fn literal_end(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..];
    let in_word = at > 0 && is_word(char::from(text[at - 1]));
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        [b'\'', ..] if !in_word => character(rest).map(|length| at + length),
        [b'r', ..] if !in_word => raw_string(&rest[1..]).map(|length| at + 1 + length),
        [b'b' | b'c', b'r', ..] if !in_word => raw_string(&rest[2..]).map(|length| at + 2 + length),
        [b'b', b'\'', ..] if !in_word => character(&rest[1..]).map(|length| at + 1 + length),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character literal's length; none for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    match rest {
        [_, b'\\', ..] => Some(quoted(rest, b'\'')),
        [_, _, b'\'', ..] => Some(3),
        _ => None,
    }
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let found = rest[hashes + 1..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(rest.len(), |at| hashes + 1 + at + end.len()))
}
