//! `/debug/pprof/symbol`: names for addresses that a client asks for, in the form of gperftools and Go.

use super::symbols::Symbols;
use crate::limits::SYMBOLS_MAX;

/// Reads `0x…+0x…`; words that are no address are passed over, as Go does. More than [`SYMBOLS_MAX`]: none.
pub fn addresses(text: &str) -> Option<Vec<usize>> {
    let words = text.split('+').map(str::trim).filter(|word| !word.is_empty());
    let addresses: Vec<usize> = words.take(SYMBOLS_MAX + 1).filter_map(address).collect();
    (addresses.len() <= SYMBOLS_MAX).then_some(addresses)
}

fn address(word: &str) -> Option<usize> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The answer: that there are names, then a line for each address that has one.
pub fn answer(addresses: &[usize], symbols: &mut Symbols) -> String {
    // Clients only look whether the number is 0.
    let mut out = "num_symbols: 1\n".to_owned();
    for address in addresses {
        if let Some(name) = symbols.name(*address) {
            out.push_str(&format!("{address:#x} {name}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        assert_eq!(addresses("0x10+0X1f+ 17 +x++0xzz"), Some(vec![0x10, 0x1f, 17]));
        assert_eq!(addresses(""), Some(vec![]));
        assert_eq!(addresses(&"0x1+".repeat(SYMBOLS_MAX)).map(|all| all.len()), Some(SYMBOLS_MAX));
        assert_eq!(addresses(&"0x1+".repeat(SYMBOLS_MAX + 1)), None);
    }

    #[test]
    fn what_has_no_name_has_no_line() {
        let known = addresses_are_read_as_go_reads_them as *const () as usize;
        let answer = answer(&[0x10, known], &mut Symbols::load());
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "num_symbols: 1"));
        assert!(lines[1].starts_with(&format!("{known:#x} ")) && lines[1].contains("as_go_reads_them"), "{answer}");
    }
}
