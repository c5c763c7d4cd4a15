//! Names for addresses.
//!
//! Method: the symbol table for the function that an address is in, the debug information for what was inlined into
//! it and for files and lines; read and given up again by each job, because they take some tens of MiB. An address in a
//! file that has no name for it is told as the file and the offset.

use std::collections::HashMap;

use backtrace::SymbolName;

use super::{
    maps::{self, Mapping},
    symtab::Symtab,
};

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name with its module, without the compiler's hash and the types that it was made for.
    pub name: String,
    /// Its source file; may be empty.
    pub file: String,
    /// The line in it; may be 0.
    pub line: u32,
}

/// Names what it is asked and remembers it.
pub struct Symbols {
    maps: Vec<Mapping>,
    symtab: Option<Symtab>,
    known: HashMap<usize, Vec<Function>>,
}

impl Symbols {
    /// For the program as it is loaded now.
    pub fn load() -> Self {
        let maps = maps::read();
        Self { symtab: Symtab::load(&maps), maps, known: HashMap::new() }
    }

    /// What is mapped.
    pub fn maps(&self) -> &[Mapping] {
        &self.maps
    }

    /// The functions at `address`, at least one: the innermost first, then those that it was inlined into.
    pub fn at(&mut self, address: usize) -> &[Function] {
        let Self { maps, symtab, known } = self;
        known.entry(address).or_insert_with(|| resolve(address, maps, symtab.as_ref()))
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

fn resolve(address: usize, maps: &[Mapping], symtab: Option<&Symtab>) -> Vec<Function> {
    let mut functions = Vec::new();
    // It takes one off, because it expects the address behind a call.
    let pointer = std::ptr::without_provenance_mut(address + 1);
    backtrace::resolve(pointer, |symbol| {
        let Some(name) = symbol.name() else { return };
        let file = symbol.filename().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        let name = with_module(&without_types(&format!("{name:#}")), &file);
        functions.push(Function { name, file, line: symbol.lineno().unwrap_or(0) });
    });
    if functions.is_empty() {
        functions.push(Function { name: place(address, maps), file: String::new(), line: 0 });
    }
    // The outermost is the function that the code belongs to; the others have no symbol.
    if let (Some(name), Some(own)) = (symtab.and_then(|symtab| symtab.name(address)), functions.last_mut()) {
        own.name = without_types(&format!("{:#}", SymbolName::new(name)));
    }
    functions
}

/// `f::<A, B>` and `f<A, B>` become `f`, `<T as Trait<A>>::f` stays: else names get longer than pictures are wide.
fn without_types(name: &str) -> String {
    let (mut out, mut depth, mut before) = (String::new(), 0_usize, ' ');
    let kept = name.strip_prefix('<').map_or(0, end_of_brackets);
    let (head, tail) = name.split_at(kept);
    out.push_str(head);
    for c in tail.chars() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' && depth > 0 => depth -= 1,
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        before = c;
    }
    let out = out.replace("::::", "::");
    out.strip_suffix("::").unwrap_or(&out).to_owned()
}

/// How long `<…>` is, of which the first bracket is left out in `rest`.
fn end_of_brackets(rest: &str) -> usize {
    let mut depth = 1_usize;
    for (at, pair) in rest.as_bytes().iter().enumerate() {
        match pair {
            b'<' => depth += 1,
            b'>' if at == 0 || rest.as_bytes()[at - 1] != b'-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 2;
        }
    }
    0
}

/// Line tables name an inlined function without its module; its file says which that is.
fn with_module(name: &str, file: &str) -> String {
    let module = if name.contains("::") { None } else { module(file) };
    module.map_or_else(|| name.to_owned(), |module| format!("{module}::{name}"))
}

/// `…/tokio-1.48.0/src/runtime/mod.rs` is `tokio::runtime`.
fn module(file: &str) -> Option<String> {
    let (folder, path) = file.rsplit_once("/src/")?;
    let folder_name = folder.rsplit('/').next().unwrap_or_default();
    let name = if folder == env!("CARGO_MANIFEST_DIR") { env!("CARGO_PKG_NAME") } else { folder_name };
    let name = name
        .rsplit_once('-')
        .filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
        .map_or(name, |(name, _)| name);
    let parts = path.strip_suffix(".rs")?.split('/').filter(|part| !["mod", "lib", "main"].contains(part));
    Some(parts.fold(name.replace('-', "_"), |module, part| module + "::" + part))
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
    fn types_are_left_out_of_names() {
        for (name, expected) in [
            ("a::b", "a::b"),
            ("a::b::<C<D>, fn() -> E>::{closure#0}", "a::b::{closure#0}"),
            ("park<m::Driver<X>>", "park"),
            ("<A<B> as C<D>>::call::<E>", "<A<B> as C<D>>::call"),
            ("<a::B<C>>::new", "<a::B<C>>::new"),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            ),
        ] {
            assert_eq!(without_types(name), expected, "{name}");
        }
    }

    #[test]
    fn a_bare_name_gets_the_module_of_its_file() {
        let own = format!("{}/src/shard/gateway/mod.rs", env!("CARGO_MANIFEST_DIR"));
        for (name, file, expected) in [
            ("hear", own.as_str(), "ws_cluster::shard::gateway::hear"),
            ("run", "/x/registry/src/index/tokio-util-0.7.1/src/task.rs", "tokio_util::task::run"),
            ("get", "/rustc/abc/library/core/src/slice/mod.rs", "core::slice::get"),
            ("a::run", "/x/y/src/z.rs", "a::run"),
            ("memcpy", "string/memcpy.S", "memcpy"),
            ("je_free", "/x/jemalloc/src/arena.c", "je_free"),
        ] {
            assert_eq!(with_module(name, file), expected, "{name} of {file}");
        }
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
