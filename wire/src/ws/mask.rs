//! Unmasking in place (RFC 6455, section 5.3).

/// XORs `bytes` with the repeated `mask` and returns the mask as it stands for the byte after them.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks are of eight bytes")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    let rest = chunks.into_remainder();
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[index & 3];
    }
    let mut next = mask;
    next.rotate_left(rest.len() & 3);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_in_pieces_equals_unmasking_at_once() {
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        let masked: Vec<u8> = (0..200u8).collect();
        let plain: Vec<u8> = masked.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        for first in 0..40 {
            for second in 0..40 {
                let mut bytes = masked.clone();
                let next = unmask(&mut bytes[..first], mask);
                let next = unmask(&mut bytes[first..first + second], next);
                unmask(&mut bytes[first + second..], next);
                assert_eq!(bytes, plain, "pieces of {first} and {second} bytes");
            }
        }
    }
}
