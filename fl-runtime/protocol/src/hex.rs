//! Bytes as hex digits.
//!
//! ```
//! use tern_protocol::hex;
//!
//! assert_eq!(hex::encode(&[0, 171, 255]), "00abff");
//! assert_eq!(hex::decode("00ABff"), Some([0, 171, 255]));
//! // Two bytes are four digits.
//! assert_eq!(hex::decode::<2>("00abff"), None);
//! assert_eq!(hex::decode::<2>("00xy"), None);
//! ```

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// Exactly `N` bytes, from digits of either case.
pub fn decode<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).map(|v| v as u8);
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}
