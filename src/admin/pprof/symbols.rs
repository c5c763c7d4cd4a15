//! Names for addresses.
//!
//! Method: the debug information of the running program, read and given up again by each job, because it takes
//! some tens of MiB. An address in a file that has no name for it is told as the file and the offset.

use std::collections::HashMap;

use super::maps::{self, Mapping};

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, generics and all, without the compiler's hash.
    pub name: String,
    /// Its source file; may be empty.
    pub file: String,
    /// The line in it; may be 0.
    pub line: u32,
}

/// Names what it is asked and remembers it.
pub struct Symbols {
    maps: Vec<Mapping>,
    known: HashMap<usize, Vec<Function>>,
}

impl Symbols {
    /// For the program as it is loaded now.
    pub fn load() -> Self {
        Self { maps: maps::read(), known: HashMap::new() }
    }

    /// What is mapped.
    pub fn maps(&self) -> &[Mapping] {
        &self.maps
    }

    /// The functions at `address`, at least one: the innermost first, then those that it was inlined into.
    pub fn at(&mut self, address: usize) -> &[Function] {
        let Self { maps, known } = self;
        known.entry(address).or_insert_with(|| resolve(address, maps))
    }

    /// The name of the innermost function at `address`, if it is known.
    pub fn name(&mut self, address: usize) -> Option<String> {
        maps::find(&self.maps, address).filter(|mapping| mapping.executable)?;
        self.at(address).first().map(|function| function.name.clone())
    }
}

impl Drop for Symbols {
    fn drop(&mut self) {
        backtrace::clear_symbol_cache();
    }
}

fn resolve(address: usize, maps: &[Mapping]) -> Vec<Function> {
    let mut functions = Vec::new();
    let pointer = std::ptr::without_provenance_mut(address);
    backtrace::resolve(pointer, |symbol| {
        let Some(name) = symbol.name() else { return };
        let file = symbol.filename().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        functions.push(Function { name: format!("{name:#}"), file, line: symbol.lineno().unwrap_or(0) });
    });
    if functions.is_empty() {
        functions.push(Function { name: place(address, maps), file: String::new(), line: 0 });
    }
    functions
}

/// `libc.so.6+0x12345`, or the bare address.
fn place(address: usize, maps: &[Mapping]) -> String {
    let Some(mapping) = maps::find(maps, address).filter(|mapping| !mapping.path.is_empty()) else {
        return format!("{address:#x}");
    };
    let file = mapping.path.rsplit('/').next().unwrap_or_default();
    let offset = (address - mapping.start) as u64 + mapping.offset;
    format!("{file}+{offset:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_program_has_its_name_and_line() {
        let mut symbols = Symbols::load();
        let address = a_function_of_this_program_has_its_name_and_line as *const () as usize;
        let functions = symbols.at(address).to_vec();
        let own = functions.iter().find(|function| function.name.contains("has_its_name_and_line")).expect("its name");
        assert!(!own.name.contains("::h") && own.file.ends_with("symbols.rs") && own.line > 0, "{own:?}");
        assert_eq!(symbols.name(address).as_ref(), functions.first().map(|function| &function.name));
    }

    #[test]
    fn what_has_no_name_has_a_place() {
        assert_eq!(place(0x10, &[]), "0x10");
        let mapping =
            Mapping { start: 0x1000, end: 0x2000, offset: 0x500, path: "/lib/libc.so.6".into(), ..Mapping::default() };
        assert_eq!(place(0x1010, &[mapping]), "libc.so.6+0x510");
        assert_eq!(Symbols::load().name(0x10), None);
    }
}
