//! The check sum with which a client proves that what it holds of a tag is what the cluster holds.
//!
//! CRC-32 of IEEE 802.3 (reflected polynomial 0xEDB88320), the one of zlib, gzip and PNG, because every language has it
//! at hand. It finds mistakes, and proves nothing against somebody who wants to deceive.

/// The check sum of a value: of its payload's bytes as they were published and are delivered.
pub fn of(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as the standard has it.
    fn slowly(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
    }

    #[test]
    fn known_texts_have_the_check_sums_of_zlib() {
        for (text, crc) in [
            ("", 0),
            ("123456789", 0xcbf4_3926),
            ("The quick brown fox jumps over the lazy dog", 0x414f_a339),
            (r#"{"bid":1}"#, 0xbbe2_f39e),
        ] {
            assert_eq!(of(text.as_bytes()), crc, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_the_check_sum_that_the_definition_gives(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(of(&bytes), slowly(&bytes));
        }
    }
}
