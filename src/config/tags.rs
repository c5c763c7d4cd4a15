//! `[[tags]]`: ordered rules for tags.

use std::time::Duration;

use super::{
    Config,
    error::{ConfigError, Source},
    file::Table,
    value::{Bounds, Kind, Unit, Value},
};
use crate::model::{
    ids::is_tag,
    tag_rule::{Access, DeliveryClass, History, TagRule, TagRules, pattern_matches},
};

const COUNT: Kind = number(Unit::Of("publications"), 0, 100_000);
const AGE: Kind = number(Unit::Time, 0, 7 * 86_400_000);
const BYTES: Kind = number(Unit::Bytes, 0, 1 << 30);
const HZ: Kind = number(Unit::Of("updates a second"), 0, 1000);

const fn number(unit: Unit, min: u64, max: u64) -> Kind {
    Kind::Number(Bounds { unit, min, max, zero: None })
}

/// Puts the file's rules into `config`.
pub(super) fn apply(config: &mut Config, tables: Vec<Table>) -> Result<(), ConfigError> {
    let mut rules: Vec<(TagRule, Source)> = Vec::new();
    for mut table in tables {
        let source = table.source.clone();
        let rule = read(&mut table, config.limits.queue.tag_table_bytes_max)?;
        if let Some((first, at)) = rules.iter().find(|(first, _)| covers(&first.pattern, &rule.pattern)) {
            let reason = format!("is never reached: {:?} at {} matches first", first.pattern, at.of("tags"));
            return Err(ConfigError::bad_value(&table.path("match"), &rule.pattern, &source, reason));
        }
        table.finish("match, class, history, dedup, access, max_hz, deflate")?;
        rules.push((rule, source));
    }
    config.tags = TagRules::new(rules.into_iter().map(|(rule, _)| rule).collect());
    Ok(())
}

fn read(table: &mut Table, tag_table_bytes_max: usize) -> Result<TagRule, ConfigError> {
    let pattern = pattern(table)?;
    let class = word(table, "class", &[("lossless", DeliveryClass::Lossless), ("latest", DeliveryClass::Latest)])?;
    let access = access(table, &pattern)?;
    let mut rule = TagRule { pattern: pattern.into(), class, access, ..TagRule::default() };
    if let Some(history) = table.take_table("history")? {
        rule.history = self::history(history, tag_table_bytes_max)?;
    }
    value(table, "dedup", &Kind::Word(""), &mut rule.dedup)?;
    value(table, "max_hz", &HZ, &mut rule.hz_max)?;
    value(table, "deflate", &Kind::Word(""), &mut rule.deflate)?;
    Ok(rule)
}

fn pattern(table: &mut Table) -> Result<String, ConfigError> {
    let Some((text, source)) = table.take_text("match")? else {
        return Err(table.refuse("match", &table.source, "is missing: match = \"kline.*\""));
    };
    let prefix = text.strip_suffix('*');
    if is_tag(prefix.unwrap_or(&text)) || prefix == Some("") {
        return Ok(text);
    }
    let reason = "is no pattern; allowed is a tag (A-Z a-z 0-9 _ . : @ / -, at most 128 bytes), or a prefix of one with * at its end";
    Err(ConfigError::bad_value(&table.path("match"), &text, &source, reason))
}

fn access(table: &mut Table, pattern: &str) -> Result<Access, ConfigError> {
    let words = [("public", Access::Public), ("private", Access::Private), ("own", Access::Own)];
    let access = word(table, "access", &words)?;
    if access == Access::Own && !pattern.ends_with('*') {
        let reason = "needs a match that ends in *: what stands there is the own uid";
        return Err(ConfigError::bad_value(&table.path("access"), "own", &table.source, reason));
    }
    Ok(access)
}

fn history(mut table: Table, tag_table_bytes_max: usize) -> Result<History, ConfigError> {
    let mut history = History::default();
    let source = table.source.clone();
    value(&mut table, "count", &COUNT, &mut history.count_max)?;
    let mut age: Duration = history.age_max;
    value(&mut table, "age_s", &AGE, &mut age)?;
    history.age_max = age;
    value(&mut table, "bytes", &BYTES, &mut history.bytes_max)?;
    if history.bytes_max > tag_table_bytes_max {
        let reason = format!("is more than all tags may take together: tag_table_bytes_max = {tag_table_bytes_max}");
        return Err(ConfigError::bad_value(&table.path("bytes"), &history.bytes_max.to_string(), &source, reason));
    }
    table.finish("count, age_s, bytes")?;
    Ok(history)
}

fn value(table: &mut Table, key: &str, kind: &Kind, place: &mut dyn Value) -> Result<(), ConfigError> {
    let Some(given) = table.take(key)? else { return Ok(()) };
    let bad = |reason| ConfigError::bad_value(&table.path(key), &given.raw.text(), &given.source, reason);
    place.read(&given.raw, kind).map_err(bad)
}

/// One of `words`, the first when nothing is given.
fn word<T: Copy>(table: &mut Table, key: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let Some((text, source)) = table.take_text(key)? else { return Ok(words[0].1) };
    let bad = || {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let reason = format!("is unknown; allowed is {}", known.join(", "));
        ConfigError::bad_value(&table.path(key), &text, &source, reason)
    };
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(bad)
}

/// Whether every tag that `second` matches is matched by `first`.
fn covers(first: &str, second: &str) -> bool {
    match second.strip_suffix('*') {
        Some(prefix) => first.ends_with('*') && pattern_matches(first, prefix),
        None => pattern_matches(first, second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_an_earlier_one_hides_is_seen() {
        for (first, second) in [("*", "a"), ("a.*", "a.b"), ("a.*", "a.b*"), ("a", "a"), ("a*", "a*")] {
            assert!(covers(first, second), "{first} {second}");
        }
        for (first, second) in [("a", "a*"), ("a.b*", "a.*"), ("a", "b"), ("a.*", "*")] {
            assert!(!covers(first, second), "{first} {second}");
        }
    }
}
