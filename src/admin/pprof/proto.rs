//! The form of a profile that `go tool pprof` reads: `profile.proto` of github.com/google/pprof, gzipped.
//!
//! Invariants: string 0 is empty; ids begin at 1; every location has its functions' names, so that a reader needs
//! neither the program nor its debug information.

use std::{collections::HashMap, io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::{
    maps::{self, Mapping},
    sampler::Tid,
    symbols::Symbols,
};

/// What a profile counts, as (type, unit).
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What each sample's two values are.
    pub values: [(&'static str, &'static str); 2],
    /// What a sample is taken every `period` of.
    pub period_of: (&'static str, &'static str),
    /// See [`Kind::period_of`].
    pub period: i64,
    /// Which of the values is shown first.
    pub default: &'static str,
}

/// A stack and its values.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// Addresses, the innermost first.
    pub stack: &'a [usize],
    /// As [`Kind::values`] says.
    pub values: [i64; 2],
    /// The thread and its name.
    pub thread: Option<(Tid, &'a str)>,
}

/// A profile in the making.
pub struct Builder<'a> {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(String, String), u64>,
    locations: HashMap<usize, u64>,
    /// Ids by first address.
    mappings: HashMap<usize, u64>,
    symbols: &'a mut Symbols,
}

impl<'a> Builder<'a> {
    /// An empty profile that began at `began` since the Unix epoch and took `lasted`.
    pub fn new(kind: Kind, began: Duration, lasted: Duration, symbols: &'a mut Symbols) -> Self {
        let (strings, functions, locations, mappings) = Default::default();
        let mut builder = Self { profile: Profile::default(), strings, functions, locations, mappings, symbols };
        builder.string("");
        builder.profile.sample_type = kind.values.iter().map(|of| builder.value_type(*of)).collect();
        builder.profile.period_type = Some(builder.value_type(kind.period_of));
        builder.profile.period = kind.period;
        builder.profile.default_sample_type = builder.string(kind.default);
        builder.profile.time_nanos = nanoseconds(began);
        builder.profile.duration_nanos = nanoseconds(lasted);
        // By convention the first mapping is the program itself.
        let program = std::env::current_exe().unwrap_or_default().to_string_lossy().into_owned();
        let text = builder.symbols.maps().iter().find(|mapping| mapping.executable && mapping.path == program).cloned();
        if let Some(text) = text {
            builder.mapping(&text);
        }
        builder
    }

    /// Adds a remark, which `pprof -comments` shows.
    pub fn comment(&mut self, text: &str) {
        let text = self.string(text);
        self.profile.comment.push(text);
    }

    /// Functions that match this regular expression are not shown, nor what they call.
    pub fn leave_out(&mut self, functions: &str) {
        self.profile.drop_frames = self.string(functions);
    }

    /// Adds a stack.
    pub fn add(&mut self, counted: &Counted<'_>) {
        let location_id = counted.stack.iter().map(|address| self.location(*address)).collect();
        let label = counted.thread.map(|(tid, name)| self.thread_labels(tid, name)).unwrap_or_default();
        self.profile.sample.push(Sample { location_id, value: counted.values.to_vec(), label });
    }

    /// The gzipped profile.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&self.profile.encode_to_vec())?;
        gzip.finish()
    }

    fn thread_labels(&mut self, tid: Tid, name: &str) -> Vec<Label> {
        let named = Label { key: self.string("thread"), str: self.string(name), num: 0 };
        let numbered = Label { key: self.string("tid"), str: 0, num: i64::from(tid) };
        vec![named, numbered]
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> ValueType {
        ValueType { kind: self.string(kind), unit: self.string(unit) }
    }

    fn location(&mut self, address: usize) -> u64 {
        if let Some(known) = self.locations.get(&address) {
            return *known;
        }
        let functions = self.symbols.at(address).to_vec();
        let mapping = maps::find(self.symbols.maps(), address).cloned();
        let mapping_id = mapping.map_or(0, |mapping| self.mapping(&mapping));
        let line = functions.into_iter().map(|function| Line {
            function_id: self.function(function.name, function.file),
            line: i64::from(function.line),
        });
        let line = line.collect();
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id, address: address as u64, line });
        self.locations.insert(address, id);
        id
    }

    fn function(&mut self, name: String, file: String) -> u64 {
        let (name_at, filename) = (self.string(&name), self.string(&file));
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry((name, file)).or_insert(next);
        if id == next {
            self.profile.function.push(Function { id, name: name_at, system_name: 0, filename });
        }
        id
    }

    fn mapping(&mut self, mapping: &Mapping) -> u64 {
        if let Some(known) = self.mappings.get(&mapping.start) {
            return *known;
        }
        let id = self.profile.mapping.len() as u64 + 1;
        let described =
            profile_mapping(id, mapping, self.string(&mapping.path), self.string(&maps::build_id(&mapping.path)));
        self.profile.mapping.push(described);
        self.mappings.insert(mapping.start, id);
        id
    }
}

fn profile_mapping(id: u64, mapping: &Mapping, filename: i64, build_id: i64) -> ProfileMapping {
    ProfileMapping {
        id,
        memory_start: mapping.start as u64,
        memory_limit: mapping.end as u64,
        file_offset: mapping.offset,
        filename,
        build_id,
        // All that a reader could look up is here already.
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<ProfileMapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    drop_frames: i64,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

/// Called `Mapping` in `profile.proto`.
#[derive(Clone, PartialEq, Message)]
struct ProfileMapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    /// Empty: pprof takes what is between angle brackets out of a name that equals this one.
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}
