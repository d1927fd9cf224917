//! Checks that the type of a dataset or an attribute has room for the members that it claims.
//!
//! The reader allocates memory for as many members as a compound or an enumeration claims, at most 65535, before it reads
//! the first member. Nested compounds make such a claim every ten bytes, so that 4 KiB of them made the reader allocate
//! gigabytes. Every real member takes bytes of its own, so the length of the message bounds the number of members. This
//! module counts members in the order in which the reader parses them (IV.A.2.d of the format's specification). The
//! reader refuses malformed types by itself.

/// The shortest member of a compound, in bytes: the terminator of an empty name, an offset of one byte, and a type of
/// eight bytes.
const MIN_MEMBER: usize = 10;

/// Whether all compounds and enumerations of a Datatype message together claim no more members than fit into it.
pub(super) fn has_room(message: &[u8]) -> bool {
    let mut types = Types { members: message.len() / MIN_MEMBER, too_many: false };
    types.skip(message);
    !types.too_many
}

/// The type in an Attribute message; `None` when it is shared, and so stored in another header.
pub(super) fn of_attribute(message: &[u8]) -> Option<&[u8]> {
    let [version, flags, n0, n1, t0, t1, _, _, rest @ ..] = message else { return None };
    let (name, length) = (u16::from_le_bytes([*n0, *n1]).into(), u16::from_le_bytes([*t0, *t1]).into());
    let (name, shared) = match version {
        1 => (usize::next_multiple_of(name, 8), false),
        2 => (name, flags & 1 == 1),
        // One further byte holds the encoding of names.
        _ => (name + 1, flags & 1 == 1),
    };
    let of_type = rest.get(name..)?;
    (!shared).then(|| of_type.get(..length).unwrap_or(of_type))
}

/// A parser of nested types that counts members.
struct Types {
    /// The number of compound members that may still follow.
    members: usize,
    too_many: bool,
}

impl Types {
    /// Returns the bytes after the type at the start of `data`; `None` when it is malformed, or claims too many members.
    fn skip<'a>(&mut self, data: &'a [u8]) -> Option<&'a [u8]> {
        let [head, b0, b1, _, s0, s1, s2, s3, rest @ ..] = data else { return None };
        let (class, version) = (head & 15, head >> 4);
        let count = usize::from(u16::from_le_bytes([*b0, *b1]));
        match class {
            // Integers and bit fields.
            0 | 4 => rest.get(4..),
            // Floats.
            1 => rest.get(12..),
            // Times.
            2 => rest.get(2..),
            // Strings and references.
            3 | 7 => Some(rest),
            // Opaque bytes with a tag.
            5 => rest.get(usize::from(*b0).next_multiple_of(8)..),
            // Compounds, and complex numbers, which have the same form.
            6 | 11 => {
                let offset = match u32::from_le_bytes([*s0, *s1, *s2, *s3]) {
                    0..=0xff => 1,
                    0x100..=0xffff => 2,
                    _ => 4,
                };
                self.members = self.members.checked_sub(count).or_else(|| self.refuse())?;
                (0..count).try_fold(rest, |rest, _| {
                    let name = rest.iter().position(|byte| *byte == 0)? + 1;
                    let before = match (class, version) {
                        (6, 1) => name.next_multiple_of(8) + 4 + 28,
                        (6, 2) => name.next_multiple_of(8) + 4,
                        _ => name + offset,
                    };
                    self.skip(rest.get(before..)?)
                })
            }
            // Enumerations: the base type, all names, all values.
            8 => {
                let [base, _, _, _, s0, s1, s2, s3, ..] = rest else { return None };
                if base & 15 != 0 {
                    return self.refuse();
                }
                let size = usize::try_from(u32::from_le_bytes([*s0, *s1, *s2, *s3])).ok()?;
                let rest = self.skip(rest)?;
                if count > rest.len() {
                    return self.refuse();
                }
                let values = (0..count).try_fold(rest, |rest, _| {
                    let name = rest.iter().position(|byte| *byte == 0)? + 1;
                    rest.get(if version < 3 { name.next_multiple_of(8) } else { name }..)
                })?;
                values.get(count.checked_mul(size)?..)
            }
            // Values of variable length.
            9 => self.skip(rest),
            // Arrays. The older version also has a permutation of the dimensions.
            10 => {
                let dims = usize::from(*rest.first()?);
                let before = if version < 3 { 4 + dims * 8 } else { 1 + dims * 4 };
                self.skip(rest.get(before..)?)
            }
            _ => None,
        }
    }

    /// Stores that there are too many members.
    fn refuse<T>(&mut self) -> Option<T> {
        self.too_many = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U8: [u8; 12] = [0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0];

    /// The first eight bytes of a type.
    fn head(class: u8, version: u8, count: u16, size: u8) -> Vec<u8> {
        let [low, high] = count.to_le_bytes();
        vec![version << 4 | class, low, high, 0, size, 0, 0, 0]
    }

    #[test]
    fn complete_types_have_room_for_their_members() {
        let member = |version| match version {
            1 => [&b"x\0\0\0\0\0\0\0"[..], &[0; 32], &U8].concat(),
            2 => [&b"x\0\0\0\0\0\0\0"[..], &[0; 4], &U8].concat(),
            _ => [&b"x\0\0"[..], &U8].concat(),
        };
        for version in 1..6 {
            let names = if version < 3 { "no\0\0\0\0\0\0yes\0\0\0\0\0" } else { "no\0yes\0" };
            let boolean = [&head(8, version, 2, 1)[..], &U8, names.as_bytes(), &[0, 1]].concat();
            let compound = [head(6, version, 3, 3), member(version).repeat(3)].concat();
            let dims: &[u8] =
                if version < 3 { &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0] } else { &[1, 2, 0, 0, 0] };
            for inner in [&U8[..], &boolean, &compound] {
                let array = [&head(10, version, 0, 2)[..], dims, inner].concat();
                let several = [&head(9, version, 0, 16)[..], &array].concat();
                for whole in [inner, &array, &several] {
                    let mut types = Types { members: 3, too_many: false };
                    assert_eq!(types.skip(whole), Some(&[][..]), "version {version}: {whole:?}");
                    assert!(has_room(whole));
                    // A truncated type is left to the reader.
                    (0..whole.len()).for_each(|len| {
                        let mut types = Types { members: 3, too_many: false };
                        assert_eq!(types.skip(&whole[..len]), None);
                    });
                }
            }
        }
    }

    #[test]
    fn claimed_members_without_room_are_refused() {
        let names = [0; 20];
        for (class, count, inner) in
            [(6, 9, &names[..]), (11, 400, &names), (8, 65535, &U8), (8, 1, &head(9, 3, 0, 1))]
        {
            let message = [&head(class, 3, count, 1), inner].concat();
            assert!(!has_room(&message), "{message:?}");
            // As the second member of a compound, and as the element of an array.
            let compound = [&head(6, 3, 2, 2)[..], b"x\0\0", &U8, b"y\0\0", &message].concat();
            assert!(!has_room(&compound));
            assert!(!has_room(&[&head(10, 3, 0, 2)[..], &[1, 2, 0, 0, 0], &message].concat()));
        }
    }

    #[test]
    fn types_of_attributes_are_found() {
        let of = |version, flags, padded: &[u8]| -> Vec<u8> {
            [&[version, flags, 3, 0, 12, 0, 8, 0], padded, &U8, &[0; 12]].concat()
        };
        assert_eq!(of_attribute(&of(1, 0, b"ab\0\0\0\0\0\0")), Some(&U8[..]));
        assert_eq!(of_attribute(&of(2, 0, b"ab\0")), Some(&U8[..]));
        assert_eq!(of_attribute(&of(3, 0, b"\0ab\0")), Some(&U8[..]));
        assert_eq!(of_attribute(&of(3, 1, b"\0ab\0")), None, "the type is in another header");
        assert_eq!(of_attribute(&[1, 0, 3]), None);
    }
}
