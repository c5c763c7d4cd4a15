//! The configuration file: TOML in, texts with their lines out.
//!
//! Read by hand instead of by derived types, because an error must name the line and must never quote a secret, and
//! what a derived type says of a bad value quotes it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    error::{ConfigError, Source},
    keys,
    sources::Given,
    value::Raw,
};

/// What a file says.
pub struct File {
    /// Keys of the table, those under `[limits]` included.
    pub settings: BTreeMap<String, Given>,
    /// `[[projects]]`.
    pub projects: Vec<Table>,
    /// `[[tags]]`.
    pub tags: Vec<Table>,
}

/// Reads the file at `path`.
///
/// # Errors
/// The file cannot be read, is no TOML, or has a key that is not one.
pub fn read(path: &Path) -> Result<File, ConfigError> {
    let shown = path.display().to_string();
    let bad = |reason: String| ConfigError::bad_value("config", &shown, &Source::File(path.into(), 1), reason);
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("failed to read the file: {error}")))?;
    parse(&text, path)
}

/// Reads `text`, which stood in the file at `path`.
pub fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
    let place = Place { text, path: path.into() };
    let document = DeTable::parse(text).map_err(|error| {
        let at = place.at(error.span().map_or(0, |span| span.start));
        ConfigError::bad_key("config", &at, format!("is no TOML: {}", error.message()))
    })?;
    let mut file = File { settings: BTreeMap::new(), projects: Vec::new(), tags: Vec::new() };
    for (name, (source, item)) in place.table(String::new(), document.get_ref(), 0).entries {
        match (name.as_str(), item) {
            ("projects", item) => file.projects = tables("projects", &source, item)?,
            ("tags", item) => file.tags = tables("tags", &source, item)?,
            ("limits", Item::Table(limits)) => {
                for (name, (source, item)) in limits.entries {
                    file.setting(name, source, item, true)?;
                }
            }
            (_, item) => file.setting(name, source, item, false)?,
        }
    }
    Ok(file)
}

impl File {
    fn setting(&mut self, name: String, source: Source, item: Item, limits: bool) -> Result<(), ConfigError> {
        let is_known =
            |section: &keys::Section| section.limits == limits && section.keys.iter().any(|key| key.name == name);
        if !keys::sections().any(is_known) {
            return Err(ConfigError::bad_key(&name, &source, unknown(&name, limits)));
        }
        let raw = item.raw().map_err(|reason| ConfigError::bad_key(&name, &source, reason))?;
        self.settings.insert(name, Given { raw, source });
        Ok(())
    }
}

/// Why a key is not one, and which one may be meant.
fn unknown(name: &str, limits: bool) -> String {
    let other = name.replace('-', "_");
    match keys::sections().find(|section| section.keys.iter().any(|key| key.name == other)) {
        Some(section) if section.limits && !limits => format!("is unknown here; {other} belongs under [limits]"),
        Some(section) if !section.limits && limits => format!("is unknown here; {other} belongs above [limits]"),
        Some(_) => format!("is unknown; write {other}"),
        None if name == "limits" => "is a table: [limits]".to_owned(),
        None if name == "config" => "is unknown here; a file cannot name another".to_owned(),
        None if limits => "is unknown under [limits]; docs/config.md has the keys".to_owned(),
        None => "is unknown; docs/config.md has the keys".to_owned(),
    }
}

fn tables(name: &str, source: &Source, item: Item) -> Result<Vec<Table>, ConfigError> {
    match item {
        Item::Tables(tables) => Ok(tables),
        Item::Raw(Raw::Many(texts)) if texts.is_empty() => Ok(Vec::new()),
        _ => Err(ConfigError::bad_key(name, source, format!("is a list of tables; begin each with [[{name}]]"))),
    }
}

/// What stands behind a key.
pub enum Item {
    /// One value or a list of values.
    Raw(Raw),
    /// A table.
    Table(Table),
    /// A list of tables.
    Tables(Vec<Table>),
    /// What no key takes.
    Other(&'static str),
}

impl Item {
    fn raw(self) -> Result<Raw, String> {
        let what = match self {
            Self::Raw(raw) => return Ok(raw),
            Self::Table(_) => "a table",
            Self::Tables(_) => "a list of tables",
            Self::Other(what) => what,
        };
        Err(format!("is {what}; give a value"))
    }
}

/// A table of the file. What is not taken out of it is unknown.
pub struct Table {
    name: String,
    /// Where it begins.
    pub source: Source,
    entries: BTreeMap<String, (Source, Item)>,
}

impl Table {
    /// The name of `key` in messages: `projects[0].pid`.
    pub fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Refuses `key`, whose value is not shown.
    pub fn refuse(&self, key: &str, source: &Source, reason: impl Into<String>) -> ConfigError {
        ConfigError::bad_key(&self.path(key), source, reason)
    }

    /// Takes one value or list out.
    pub fn take(&mut self, key: &str) -> Result<Option<Given>, ConfigError> {
        let Some((source, item)) = self.entries.remove(key) else { return Ok(None) };
        match item.raw() {
            Ok(raw) => Ok(Some(Given { raw, source })),
            Err(reason) => Err(self.refuse(key, &source, reason)),
        }
    }

    /// Takes one text out.
    pub fn take_text(&mut self, key: &str) -> Result<Option<(String, Source)>, ConfigError> {
        match self.take(key)? {
            None => Ok(None),
            Some(Given { raw: Raw::One(text), source }) => Ok(Some((text, source))),
            Some(given) => Err(self.refuse(key, &given.source, "is a list; give one value")),
        }
    }

    /// Takes a list of texts out, with the list's source; none is an empty list.
    pub fn take_list(&mut self, key: &str) -> Result<(Vec<String>, Source), ConfigError> {
        match self.take(key)? {
            None => Ok((Vec::new(), self.source.clone())),
            Some(Given { raw: Raw::Many(texts), source }) => Ok((texts, source)),
            Some(given) => Err(self.refuse(key, &given.source, "is one value; give a list: [\"…\"]")),
        }
    }

    /// Takes a table out.
    pub fn take_table(&mut self, key: &str) -> Result<Option<Table>, ConfigError> {
        match self.entries.remove(key) {
            None => Ok(None),
            Some((_, Item::Table(table))) => Ok(Some(table)),
            Some((source, _)) => Err(self.refuse(key, &source, "is no table; write { … }")),
        }
    }

    /// Refuses what is left.
    pub fn finish(self, known: &str) -> Result<(), ConfigError> {
        match self.entries.iter().next() {
            None => Ok(()),
            Some((key, (source, _))) => Err(self.refuse(key, source, format!("is unknown; allowed is {known}"))),
        }
    }
}

/// The text that is read and where it stood.
struct Place<'a> {
    text: &'a str,
    path: Arc<Path>,
}

impl Place<'_> {
    /// The source of what begins at `offset`.
    fn at(&self, offset: usize) -> Source {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Source::File(self.path.clone(), 1 + before.iter().filter(|byte| **byte == b'\n').count())
    }

    fn table(&self, name: String, table: &DeTable<'_>, offset: usize) -> Table {
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            let path = if name.is_empty() { key.get_ref().to_string() } else { format!("{name}.{}", key.get_ref()) };
            entries.insert(key.get_ref().to_string(), (self.at(key.span().start), self.item(path, value)));
        }
        Table { name, source: self.at(offset), entries }
    }

    fn item(&self, name: String, value: &Spanned<DeValue<'_>>) -> Item {
        match value.get_ref() {
            DeValue::Table(table) => Item::Table(self.table(name, table, value.span().start)),
            DeValue::Array(array) => self.array(&name, array),
            scalar => text_of(scalar).map_or(Item::Other("a date or time"), |text| Item::Raw(Raw::One(text))),
        }
    }

    fn array(&self, name: &str, array: &DeArray<'_>) -> Item {
        if let Some(texts) = array.iter().map(|value| text_of(value.get_ref())).collect() {
            return Item::Raw(Raw::Many(texts));
        }
        let tables = array.iter().enumerate().map(|(index, value)| match value.get_ref() {
            DeValue::Table(table) => Some(self.table(format!("{name}[{index}]"), table, value.span().start)),
            _ => None,
        });
        tables.collect::<Option<_>>().map_or(Item::Other("a list of unlike things"), Item::Tables)
    }
}

/// A text, number or truth value as text.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(number.to_string()),
            Err(_) => Some(number.as_str().to_owned()),
        },
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
