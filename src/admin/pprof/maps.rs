//! What is mapped into the process, as the kernel lists it, and the build id of a file.

use std::{fs, io::Read};

/// One line of `/proc/self/maps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: usize,
    /// Behind the last address.
    pub end: usize,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// The file, or a word in brackets, or nothing.
    pub path: String,
}

/// Every mapping, by rising address; none where `/proc` is not mounted.
pub fn read() -> Vec<Mapping> {
    fs::read_to_string("/proc/self/maps").unwrap_or_default().lines().filter_map(parse).collect()
}

/// The mapping that has `address`.
pub fn find(maps: &[Mapping], address: usize) -> Option<&Mapping> {
    let before = maps.partition_point(|mapping| mapping.start <= address);
    maps[..before].last().filter(|mapping| address < mapping.end)
}

/// `start-end rwxp offset device inode path` (proc_pid_maps(5)).
fn parse(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, behind) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        rest = behind;
        field
    };
    let (addresses, flags, offset) = (field(), field(), field());
    let (_device, _inode) = (field(), field());
    let (start, end) = addresses.split_once('-')?;
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        readable: flags.starts_with('r'),
        executable: flags.contains('x'),
        path: rest.trim_start().to_owned(),
    })
}

/// How much of a file is searched for its build id: linkers put it in front.
const HEAD_BYTES: u64 = 64 << 10;
/// A note's header, `n_namesz` 4, `n_descsz` 20 (SHA-1), `NT_GNU_BUILD_ID`, and its name (elf(5)).
const BUILD_ID_NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
const BUILD_ID_BYTES: usize = 20;

/// The build id of a file in hex; empty if it has none.
pub fn build_id(path: &str) -> String {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    if read.is_err() {
        return String::new();
    }
    let note = head.windows(BUILD_ID_NOTE.len()).position(|window| window == BUILD_ID_NOTE);
    let id = note.and_then(|at| head.get(at + BUILD_ID_NOTE.len()..)?.get(..BUILD_ID_BYTES)).unwrap_or_default();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_a_file_are_read() {
        let file = parse("7f00-8f00 r-xp 00001000 fe:00 12345                      /a folder/x").expect("a mapping");
        let expected = Mapping {
            start: 0x7f00,
            end: 0x8f00,
            offset: 0x1000,
            readable: true,
            executable: true,
            path: "/a folder/x".to_owned(),
        };
        assert_eq!(file, expected);
        assert_eq!(
            parse("1-2 ---p 0 00:00 0").map(|mapping| (mapping.readable, mapping.path)),
            Some((false, "".into()))
        );
        assert_eq!(parse("no mapping"), None);
    }

    #[test]
    fn an_address_finds_its_own_mapping_only() {
        let maps = read();
        let here = find(&maps, an_address_finds_its_own_mapping_only as *const () as usize).expect("code is mapped");
        assert!(here.executable && here.path.starts_with('/'), "{here:?}");
        assert_eq!(find(&maps, 0), None);
        assert_eq!(build_id("/nowhere"), "");
    }
}
