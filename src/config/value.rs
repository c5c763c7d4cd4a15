//! How one given text becomes a value of a setting's type, and how that is written in a file again.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    number::{SIZE_FORM, TIME_FORM, parse_size, parse_time, show_size, show_time},
    redis_url::RedisUrl,
    values::{Choice, Port, SentryDsn},
};
use crate::model::{
    network::{Network, Networks},
    project::Secret,
};

/// A value as it was given: one text, or the texts of a list in the file. No `Debug`: some are secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Raw {
    /// A text, number or truth value.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl Raw {
    /// The value as one text, a list with commas.
    pub fn text(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Many(texts) => texts.join(","),
        }
    }

    fn one(&self) -> Result<&str, String> {
        match self {
            Self::One(text) if text.is_empty() => Err("is empty; leave it out or give a value".to_owned()),
            Self::One(text) => Ok(text),
            Self::Many(_) => Err("is a list; give one value".to_owned()),
        }
    }

    fn many(&self) -> Vec<&str> {
        match self {
            Self::One(text) => text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect(),
            Self::Many(texts) => texts.iter().map(String::as_str).collect(),
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time; the bounds are milliseconds.
    Time,
    /// Bytes.
    Bytes,
    /// These.
    Of(&'static str),
}

impl Unit {
    /// What is counted, behind a comma, where the number itself does not say it.
    pub fn noun(self) -> String {
        match self {
            Self::Time | Self::Bytes => String::new(),
            Self::Of(noun) => format!(", {noun}"),
        }
    }

    /// A number of this unit as people write it.
    pub fn show(self, number: u64) -> String {
        match self {
            Self::Time => show_time(Duration::from_millis(number)),
            Self::Bytes => show_size(number),
            Self::Of(_) => number.to_string(),
        }
    }
}

/// The allowed range of a number, ends included.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What it counts.
    pub unit: Unit,
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
    /// What 0 means where it is allowed though it is less than the least.
    pub zero: Option<&'static str>,
}

impl Bounds {
    /// The range in words.
    pub fn range(&self) -> String {
        let range = format!("{} to {}", self.unit.show(self.min), self.unit.show(self.max));
        self.zero.map_or(range.clone(), |meaning| format!("{range}, or 0 ({meaning})"))
    }

    /// Refuses what is outside; times are compared as given, not in whole milliseconds.
    fn check<T: PartialOrd>(&self, value: T, bound: impl Fn(u64) -> T) -> Result<T, String> {
        let is_zero = self.zero.is_some() && value == bound(0);
        if is_zero || (bound(self.min) <= value && value <= bound(self.max)) {
            return Ok(value);
        }
        let what = if value < bound(self.min) { "too small" } else { "too large" };
        Err(format!("is {what}; allowed is {}", self.range()))
    }

    fn read_number(&self, text: &str) -> Result<u64, String> {
        let number = match self.unit {
            Unit::Bytes => {
                parse_size(text).ok_or_else(|| format!("is no size; {SIZE_FORM}; allowed is {}", self.range()))
            }
            _ => text.parse().map_err(|_| format!("is no whole number; allowed is {}", self.range())),
        };
        self.check(number?, |bound| bound)
    }
}

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number in a range.
    Number(Bounds),
    /// A text that passes a check; the words say what is right.
    Text(&'static str, fn(&str) -> bool),
    /// What its type says; the words say it for the reader.
    Word(&'static str),
}

/// What a reload asks of a place: whether two are the same, and to take the other's value over.
pub trait Compare {
    /// The value, for the other one's methods.
    fn as_any(&self) -> &dyn Any;

    /// Whether `other` is of the same type and equal.
    fn is_same(&self, other: &dyn Any) -> bool;

    /// Takes over the value of `other`, if it is of the same type.
    fn copy_from(&mut self, other: &dyn Any);
}

impl<T: Clone + PartialEq + 'static> Compare for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }

    fn copy_from(&mut self, other: &dyn Any) {
        if let Some(other) = other.downcast_ref::<T>() {
            self.clone_from(other);
        }
    }
}

/// A place in the configuration that can be read into and shown.
pub trait Value: Compare {
    /// Reads what was given.
    ///
    /// # Errors
    /// What is wrong with it and what would be right, without the value.
    fn read(&mut self, given: &Raw, kind: &Kind) -> Result<(), String>;

    /// The value as TOML; `None` when there is none. A secret shows stars.
    fn show(&self, kind: &Kind) -> Option<String>;

    /// The value as a number that compares with others of its unit, if it is one; times are microseconds.
    fn amount(&self) -> Option<u64> {
        None
    }
}

impl Value for Duration {
    fn read(&mut self, given: &Raw, kind: &Kind) -> Result<(), String> {
        let Kind::Number(bounds) = kind else { return Err("takes no duration".to_owned()) };
        let form = || format!("is no duration; {TIME_FORM}; allowed is {}", bounds.range());
        *self = bounds.check(parse_time(given.one()?).ok_or_else(form)?, Duration::from_millis)?;
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(format!("{:?}", show_time(*self)))
    }

    fn amount(&self) -> Option<u64> {
        u64::try_from(self.as_micros()).ok()
    }
}

macro_rules! number_value {
    ($($type:ty)+) => {$(
        impl Value for $type {
            fn read(&mut self, given: &Raw, kind: &Kind) -> Result<(), String> {
                let Kind::Number(bounds) = kind else { return Err("takes no number".to_owned()) };
                let number = bounds.read_number(given.one()?)?;
                *self = <$type>::try_from(number).map_err(|_| "is too large".to_owned())?;
                Ok(())
            }

            fn show(&self, kind: &Kind) -> Option<String> {
                let number = u64::try_from(*self).unwrap_or(u64::MAX);
                match kind {
                    Kind::Number(Bounds { unit: Unit::Bytes, .. }) if number != 0 => {
                        Some(format!("{:?}", show_size(number)))
                    }
                    _ => Some(number.to_string()),
                }
            }

            fn amount(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )+};
}

number_value!(u8 u16 u32 u64 usize);

impl Value for bool {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        *self = given.one()?.parse().map_err(|_| "is neither true nor false".to_owned())?;
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for Port {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        let wrong = |_| "is no port; allowed is 1 to 65535, 0 (chosen and printed) or \"off\"".to_owned();
        *self = match given.one()? {
            "off" => Self::Off,
            text => Self::Number(text.parse().map_err(wrong)?),
        };
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(self.number().map_or_else(|| "\"off\"".to_owned(), |number| number.to_string()))
    }
}

impl Value for IpAddr {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        *self = match given.one()? {
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            text => text.parse().map_err(|_| "is no address; write 0.0.0.0, ::, 127.0.0.1 or localhost".to_owned())?,
        };
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

impl Value for Networks {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        let networks: Result<Vec<Network>, _> = given.many().into_iter().map(str::parse).collect();
        *self = Self::new(networks.map_err(|reason| format!("holds what is no network: {reason}"))?);
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        let networks: Vec<_> = self.iter().map(|network| format!("\"{network}\"")).collect();
        Some(format!("[{}]", networks.join(", ")))
    }
}

impl Value for Option<Secret> {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        let text = given.one()?;
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("holds what cannot stand in a header; use printable ASCII without spaces".to_owned());
        }
        *self = Some(Secret::new(text));
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        self.is_some().then(|| "\"***\"".to_owned())
    }
}

impl Value for RedisUrl {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        *self = Self::parse(given.one()?).map_err(str::to_owned)?;
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

impl Value for SentryDsn {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        *self = match given {
            Raw::One(text) => Self::parse(text).map_err(str::to_owned)?,
            Raw::Many(_) => return Err("is a list; give one value".to_owned()),
        };
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        self.dsn().map(|_| "\"***\"".to_owned())
    }
}

fn checked(given: &Raw, kind: &Kind) -> Result<String, String> {
    let text = given.one()?;
    match kind {
        Kind::Text(form, is_right) if !is_right(text) => Err(format!("is not {form}")),
        _ => Ok(text.to_owned()),
    }
}

impl Value for String {
    fn read(&mut self, given: &Raw, kind: &Kind) -> Result<(), String> {
        *self = checked(given, kind)?;
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Value for Option<String> {
    fn read(&mut self, given: &Raw, kind: &Kind) -> Result<(), String> {
        *self = Some(checked(given, kind)?);
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        self.as_ref().map(|text| format!("{text:?}"))
    }
}

impl<T: Choice> Value for T {
    fn read(&mut self, given: &Raw, _: &Kind) -> Result<(), String> {
        let text = given.one()?;
        let known = T::WORDS.iter().find(|(word, _)| *word == text);
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        *self = known.ok_or_else(|| format!("is unknown; allowed is {}", words.join(", ")))?.1;
        Ok(())
    }

    fn show(&self, _: &Kind) -> Option<String> {
        Some(format!("\"{}\"", self.word()))
    }
}
