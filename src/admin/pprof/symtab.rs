//! The symbols of the program's own file: the full name of the function that an address is in.
//!
//! Why beside the debug information: line tables alone name a function without its module where something was
//! inlined into it, and `run` or `poll` would be anybody's.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use super::maps::{self, Mapping};

/// The functions of the program.
pub struct Symtab {
    /// Where its code is in memory.
    text: Range<usize>,
    /// What to add to an address in memory for one of the file.
    bias: u64,
    /// By address.
    functions: Vec<Function>,
    names: Vec<u8>,
}

struct Function {
    start: u64,
    size: u64,
    /// Where its name begins.
    name: u32,
}

/// No section is believed to be longer.
const SECTION_BYTES_MAX: u64 = 1 << 30;

impl Symtab {
    /// Reads the file that this code is in; none if it was stripped or is no ELF file of 64 bits.
    pub fn load(maps: &[Mapping]) -> Option<Self> {
        let text = maps::find(maps, Self::load as *const () as usize)?;
        let file = File::open("/proc/self/exe").ok()?;
        let head = read(&file, 0, 64)?;
        // elf(5): the magic, 64 bits, little endian.
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let segments = table(&file, u64_at(&head, 32)?, u16_at(&head, 54)?, u16_at(&head, 56)?)?;
        let sections = table(&file, u64_at(&head, 40)?, u16_at(&head, 58)?, u16_at(&head, 60)?)?;
        let in_memory = segments.iter().find_map(|segment| address_of(segment, text.offset))?;
        let symbols = sections.iter().find(|section| u32_at(section, 4) == Some(SHT_SYMTAB))?;
        let names = sections.get(u32_at(symbols, 40)? as usize)?;
        let names = section(&file, names)?;
        let symbols = section(&file, symbols)?;
        let mut functions: Vec<Function> = symbols.chunks_exact(SYMBOL_BYTES).filter_map(function).collect();
        functions.sort_unstable_by_key(|function| function.start);
        let bias = in_memory.wrapping_sub(text.start as u64);
        Some(Self { text: text.start..text.end, bias, functions, names })
    }

    /// The mangled name of the function at `address`.
    pub fn name(&self, address: usize) -> Option<&[u8]> {
        if !self.text.contains(&address) {
            return None;
        }
        let address = self.bias.wrapping_add(address as u64);
        let before = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions[..before].last()?;
        if address - function.start >= function.size {
            return None;
        }
        self.names.get(function.name as usize..)?.split(|byte| *byte == 0).next()
    }
}

const SHT_SYMTAB: u32 = 2;
const STT_FUNC: u8 = 2;
const PT_LOAD: u32 = 1;
const SYMBOL_BYTES: usize = 24;

/// `Elf64_Sym`
fn function(symbol: &[u8]) -> Option<Function> {
    let function = Function { start: u64_at(symbol, 8)?, size: u64_at(symbol, 16)?, name: u32_at(symbol, 0)? };
    (symbol[4] & 0xf == STT_FUNC && function.size > 0).then_some(function)
}

/// The address that a segment of code (`Elf64_Phdr`) gives to a place in the file.
fn address_of(segment: &[u8], offset: u64) -> Option<u64> {
    let (start, address, bytes) = (u64_at(segment, 8)?, u64_at(segment, 16)?, u64_at(segment, 32)?);
    let is_code = u32_at(segment, 0)? == PT_LOAD && u32_at(segment, 4)? & PF_X != 0;
    // The kernel maps whole pages, so that a mapping may begin a little before its segment.
    let inside = is_code && offset + PAGE_BYTES_MAX > start && offset < start + bytes;
    inside.then(|| address.wrapping_add(offset).wrapping_sub(start))
}

const PF_X: u32 = 1;
/// The largest pages that Linux has on our machines (aarch64).
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// The content of a section (`Elf64_Shdr`).
fn section(file: &File, header: &[u8]) -> Option<Vec<u8>> {
    read(file, u64_at(header, 24)?, u64_at(header, 32)?)
}

fn table(file: &File, offset: u64, entry: u16, entries: u16) -> Option<Vec<Vec<u8>>> {
    let bytes = read(file, offset, u64::from(entry) * u64::from(entries))?;
    Some(bytes.chunks_exact(usize::from(entry.max(1))).map(<[u8]>::to_vec).collect())
}

fn read(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let length = usize::try_from(length.min(SECTION_BYTES_MAX)).ok()?;
    let mut bytes = vec![0; length];
    let read: io::Result<()> = file.read_exact_at(&mut bytes, offset);
    read.ok().map(|()| bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_from_its_first_to_its_last_byte() {
        let symtab = Symtab::load(&maps::read()).expect("tests are not stripped");
        let here = a_function_is_found_from_its_first_to_its_last_byte as *const () as usize;
        let name = symtab.name(here).expect("its name");
        assert!(String::from_utf8_lossy(name).contains("a_function_is_found_from_its_first"), "{name:?}");
        assert_eq!(symtab.name(here + 1), Some(name));
        assert_ne!(symtab.name(here.wrapping_sub(1)), Some(name));
        assert_eq!(symtab.name(0), None);
    }
}
