//! Every committed specimen of a wrong file gives the expected typed error, with little memory, mapped and read.
//!
//! The bounds on memory are [`MAX_PEAK`] at any time, where 64 MiB are promised, and [`MAX_TOTAL`] over the whole call.
//! The total also bounds the work, by a number that does not depend on the machine's load. The fuzz targets bound the
//! time: each of their inputs must end within seconds.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{count, entries, preset, specimens};
use rachis_loader::{Access, Error, Preset, Region, hdf5, safetensors};

/// The largest number of bytes in use at once while a specimen is refused.
const MAX_PEAK: usize = 128 << 10;

/// The largest total size of all allocations, in bytes.
const MAX_TOTAL: usize = 512 << 10;

/// The variant of an error, and its message, which must be one line of bounded length.
fn describe(error: &Error) -> (String, String) {
    let (debug, message) = (format!("{error:?}"), error.to_string());
    assert!(!message.contains('\n') && message.len() < 2000, "{message:?}");
    (debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned(), message)
}

/// Opens a directory mapped and read, and returns the error, which must be the same.
fn refused(dir: &Path) -> (String, String) {
    let [mapped, read] = [Access::Map, Access::Read].map(|access| {
        let (result, count) = count(|| Preset::open(dir, access).expect_err(&format!("{dir:?}")));
        assert!(count.peak < MAX_PEAK && count.total < MAX_TOTAL, "{dir:?}: {count:?}");
        describe(&result)
    });
    assert_eq!(mapped, read);
    mapped
}

/// Checks all specimens of a kind against a table of name, variant and a part of the message.
fn check(kind: &str, table: &[(&str, &str, &str)], refuse: impl Fn(&Path) -> (String, String)) {
    let mut expected: Vec<&str> = table.iter().map(|(name, ..)| *name).collect();
    expected.sort();
    let paths = entries(&specimens(kind));
    let found: Vec<_> = paths.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(expected, found, "the table and the files");

    for (name, variant, part) in table {
        let path = paths.iter().find(|path| path.file_stem().unwrap() == *name).unwrap();
        let (found, message) = refuse(path);
        assert!(found == *variant && message.contains(part), "{kind}/{name}: {found}: {message}");
    }
}

#[test]
fn wrong_safetensors_files_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("empty", "Truncated", "at least 8 bytes for its header, found 0"),
        ("cut_in_length", "Truncated", "at least 8 bytes for its header, found 4"),
        ("cut_after_length", "Truncated", "found 8"),
        ("cut_in_header", "Truncated", "found 20"),
        ("header_longer_than_file", "Truncated", "at least 1008 bytes"),
        ("header_length_at_limit", "Truncated", "at least 100000008 bytes"),
        ("header_length_over_limit", "HeaderTooLarge", "at most 100000000 bytes, found one of 100000001"),
        ("header_length_2_63", "HeaderTooLarge", "found one of 9223372036854775808"),
        ("header_length_2_64", "HeaderTooLarge", "found one of 18446744073709551615"),
        ("pickle", "HeaderTooLarge", "found one of 8751349991817282176"),
        ("zip", "HeaderTooLarge", "found one of 85966670672"),
        ("header_empty", "Header", "first byte"),
        ("header_not_utf8", "Header", "invalid utf-8"),
        ("header_not_json", "Entry", "expected value"),
        ("header_cut_json", "Entry", "EOF"),
        ("header_array", "Header", "first byte"),
        ("header_after_space", "Header", "first byte"),
        ("header_then_more", "Header", "trailing characters"),
        ("header_deep", "Header", "__metadata__: invalid type: map, expected a string"),
        ("metadata_not_object", "Header", "__metadata__: invalid type: string"),
        ("metadata_not_text", "Header", "__metadata__: invalid type: integer"),
        ("metadata_twice", "Header", "__metadata__: this key twice"),
        ("metadata_key_twice", "Header", "the key \"a\" twice"),
        ("entry_not_object", "Entry", "tensor \"a\": expected dtype, shape and data_offsets"),
        ("entry_array", "Entry", "invalid type: sequence, expected an object"),
        ("entry_deep", "Entry", "invalid type: sequence"),
        ("entry_without_dtype", "Entry", "missing field `dtype`"),
        ("entry_without_shape", "Entry", "missing field `shape`"),
        ("entry_without_offsets", "Entry", "missing field `data_offsets`"),
        ("entry_field_twice", "Entry", "duplicate field `dtype`"),
        ("entry_unknown_field", "Entry", "unknown field `strides`"),
        ("dtype_unknown", "Entry", "unknown variant `Q4_0`"),
        ("shape_negative", "Entry", "invalid value: integer `-1`"),
        ("shape_fraction", "Entry", "invalid type: floating point"),
        ("shape_beyond_u64", "Entry", "invalid type: floating point"),
        ("offsets_one", "Entry", "invalid length 1"),
        ("offsets_three", "Entry", "trailing characters"),
        ("offsets_negative", "Entry", "invalid value: integer `-4`"),
        ("name_twice", "Duplicate", "expected \"a\" once"),
        ("name_twice_same_place", "Duplicate", "expected \"a\" once"),
        ("name_twice_escaped", "Duplicate", "expected \"a\" once"),
        ("offsets_reversed", "Offsets", "within 4 bytes of data, found 4 to 0"),
        ("offsets_beyond_end", "Offsets", "within 4 bytes of data, found 0 to 8"),
        ("offsets_2_63", "Offsets", "found 9223372036854775808 to 9223372036854775812"),
        ("overlap", "NotContiguous", "tensor \"b\": expected to begin where the previous tensor ends, 8, found 4"),
        ("overlap_whole", "NotContiguous", "ends, 8, found 0"),
        ("hole", "NotContiguous", "ends, 4, found 8"),
        ("hole_at_start", "NotContiguous", "ends, 0, found 4"),
        ("trailing_byte", "TrailingBytes", "data section of 5 bytes, found them end at 4"),
        ("trailing_without_tensors", "TrailingBytes", "data section of 22 bytes, found them end at 0"),
        ("shape_overflow", "ShapeOverflow", "[4294967296, 4294967296]"),
        ("shape_overflow_in_bits", "ShapeOverflow", "[576460752303423488]"),
        ("shape_overflow_beside_0", "ShapeOverflow", "[0, 1099511627776, 1099511627776]"),
        ("shape_overflow_many_dims", "Entry", "at most 8 dimensions"),
        ("shape_bomb", "DataLength", "expected 4398046511104 bytes of F32, found 4 bytes"),
        ("shape_larger_than_data", "DataLength", "expected 8 bytes of F32, found 4 bytes"),
        ("shape_smaller_than_data", "DataLength", "expected 4 bytes of F32, found 8 bytes"),
        ("dtype_of_another_size", "DataLength", "expected 4 bytes of F16, found 8 bytes"),
        ("dtype_of_half_a_byte", "DataLength", "expected a whole number of bytes of F4, not 4 bits"),
    ];
    check("safetensors", &table, |path| {
        let bytes = fs::read(path).unwrap();
        let dir = preset(&[("model.safetensors", &bytes)]);
        let (variant, message) = refused(dir.path());
        assert!(message.contains("model.safetensors"), "{message}");
        let in_memory =
            Preset::from_bytes(common::CONFIG.as_bytes(), Region::from_vec("model.safetensors", bytes));
        assert_eq!(describe(&in_memory.unwrap_err()), (variant.clone(), message.clone()));
        (variant, message)
    });
}

#[test]
fn wrong_configurations_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("empty", "Malformed", "EOF"),
        ("not_json", "Malformed", "\"config.json\": expected a JSON object"),
        ("cut", "Malformed", "EOF"),
        ("array", "Malformed", "a JSON object, found an array of 1"),
        ("text", "Malformed", "a JSON object, found \"bert\""),
        ("then_more", "Malformed", "trailing characters"),
        ("deep", "Malformed", "recursion limit exceeded"),
        ("not_utf8", "Malformed", "invalid unicode"),
        ("nan", "Malformed", "expected value"),
        ("number_overflow", "Malformed", "number out of range"),
        ("model_type_missing", "Field", "\"model_type\": expected a string, found nothing"),
        ("model_type_null", "Field", "\"model_type\": expected a string, found null"),
        ("model_type_number", "Field", "\"model_type\": expected a string, found 7"),
        ("keras_name_number", "Field", "\"registered_name\": expected a string, found 7"),
        ("keras_without_config", "Field", "\"config\": expected an object, found nothing"),
        ("keras_config_array", "Field", "\"config\": expected an object, found an array of 0"),
    ];
    check("config", &table, |path| {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(path, dir.path().join("config.json")).unwrap();
        refused(dir.path())
    });
}

#[test]
fn wrong_indices_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("not_json", "Malformed", "\"model.safetensors.index.json\": expected an object with a weight_map"),
        ("array", "Malformed", "invalid type: sequence, expected an object"),
        ("without_map", "Malformed", "missing field `weight_map`"),
        ("map_is_array", "Malformed", "invalid type: sequence"),
        ("map_twice", "Malformed", "duplicate field `weight_map`"),
        ("shard_is_number", "Malformed", "invalid type: integer"),
        ("tensor_twice", "Malformed", "the key \"a\" twice"),
        ("deep_then_more", "Malformed", "trailing characters"),
        ("name_parent", "OutsideDirectory", "\"../tensor_missing/one.safetensors\": expected a plain file name"),
        ("name_through_itself", "OutsideDirectory", "expected a plain file name"),
        ("name_absolute", "OutsideDirectory", "\"/etc/passwd\": expected a plain file name"),
        ("name_drive", "OutsideDirectory", "expected a plain file name"),
        ("name_backslash", "OutsideDirectory", "expected a plain file name"),
        ("name_dot", "OutsideDirectory", "expected a plain file name"),
        ("name_dot_dot", "OutsideDirectory", "expected a plain file name"),
        ("name_empty", "OutsideDirectory", "expected a plain file name"),
        ("name_nul", "OutsideDirectory", "expected a plain file name"),
        ("name_long", "OutsideDirectory", "expected a plain file name"),
        ("name_in_subdirectory", "OutsideDirectory", "expected a plain file name"),
        ("shard_missing", "MissingFile", "expected two.safetensors, found no such file"),
        ("shard_is_index", "HeaderTooLarge", "\"model.safetensors.index.json\""),
        ("shard_corrupt", "Offsets", "\"two.safetensors\": tensor \"b\""),
        ("tensor_missing", "NotInShard", "\"one.safetensors\": expected tensor \"c\""),
        ("tensor_elsewhere", "NotInShard", "\"one.safetensors\": expected tensor \"b\""),
        ("tensor_unlisted", "NotInIndex", "\"one.safetensors\": expected only the tensors that the index places there, found \"b\""),
        ("tensor_in_two_shards", "Duplicate", "\"two.safetensors\": expected \"a\" once, found it again in \"one.safetensors\""),
    ];
    check("index", &table, |path| {
        let names: Vec<_> = entries(path)
            .iter()
            .filter(|path| path.is_file())
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        let dir = preset(&[]);
        for name in names {
            fs::copy(path.join(&name), dir.path().join(&name)).unwrap();
        }
        refused(dir.path())
    });
}

#[test]
fn wrong_hdf5_files_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("empty", "Hdf5", "signature not found"),
        ("not_hdf5", "Hdf5", "signature not found"),
        ("version_unknown", "Hdf5", "unsupported superblock version: 9"),
        ("cut_in_superblock", "Hdf5", "unexpected EOF: need 96 bytes, have 40"),
        ("cut_after_superblock", "Hdf5", "a truncated file"),
        ("cut_at_last_byte", "Hdf5", "a truncated file"),
        ("end_beyond_file", "Hdf5", "a truncated file"),
        ("end_2_64", "Hdf5", "a truncated file"),
        ("base_elsewhere", "Hdf5", "does not start with a superblock of 64-bit offsets"),
        ("sizes_of_4", "Hdf5", "does not start with a superblock of 64-bit offsets"),
        ("sizes_of_0", "Hdf5", "invalid offset size: 0"),
        ("root_beyond_file", "Hdf5", "a structure that does not lie in the file"),
        ("root_undefined", "Hdf5", "a structure that does not lie in the file"),
        ("root_is_superblock", "Hdf5", "invalid object header version: 137"),
        ("root_is_dataset", "Hdf5", "object header is not a group"),
        ("external_storage", "Storage", "tensor \"a/b\": expected contiguous data in this file, found external storage"),
        ("external_storage_and_data", "Storage", "found external storage"),
        ("virtual", "Storage", "found a virtual dataset"),
        ("soft_link_old", "Link", "group \"/\": expected hard links to objects of this file, found a soft link"),
        ("soft_link_old_to_object", "Link", "found a soft link"),
        ("soft_link", "Link", "found a soft link"),
        ("soft_link_dense", "Link", "found a link to an object that is not a group or a dataset"),
        ("external_link_dense", "Link", "found a link to an object that is not a group or a dataset"),
        ("external_link", "Link", "found a link into another file"),
        ("link_of_unknown_kind", "Link", "found a link of an unknown kind"),
        ("link_to_type_old", "Link", "found a link to an object that is not a group or a dataset"),
        ("link_to_type", "Link", "found a link to an object that is not a group or a dataset"),
        ("cycle", "Link", "group \"/b\": expected hard links to objects of this file, found two links to one group"),
        ("cycle_to_ancestor", "Link", "group \"/a/b\": expected hard links to objects of this file, found two links to one group"),
        ("cycle_newer", "Link", "found two links to one group"),
        ("cycle_dense", "Link", "found two links to one group"),
        ("group_twice", "Link", "found two links to one group"),
        ("dataset_twice", "Overlap", "tensor \"b\": expected bytes of its own, found them shared with \"a\""),
        ("overlap", "Overlap", "found them shared with \"a\""),
        ("overlap_misaligned", "Overlap", "tensor \"01\": expected bytes of its own, found them shared with \"00\""),
        ("name_twice", "Duplicate", "expected \"a\" once"),
        ("name_empty", "Link", "found a link name that is empty, a dot or a path"),
        ("name_dot", "Link", "found a link name that is empty, a dot or a path"),
        ("name_dot_dot", "Link", "found a link name that is empty, a dot or a path"),
        ("name_slash", "Link", "found a link name that is empty, a dot or a path"),
        ("name_path", "Link", "found a link name that is empty, a dot or a path"),
        ("name_not_utf8", "Hdf5", "not UTF-8"),
        ("name_long", "Hdf5", "a path of more than 1024 bytes"),
        ("deep", "Hdf5", "groups nested deeper than 32 levels"),
        ("tree_of_itself", "Hdf5", "depth exceeded"),
        ("tree_doubling", "Hdf5", "structures that take more reading than the file"),
        ("many_long_names", "Hdf5", "structures that take more reading than the file"),
        ("continued_by_itself", "Hdf5", "depth exceeded"),
        ("types_nested", "ElementType", "values of variable length"),
        ("compounds_nested", "Hdf5", "a type with more members than there is room for"),
        ("compounds_nested_in_attribute", "Hdf5", "a type with more members than there is room for"),
        ("compound_of_many", "Hdf5", "a type with more members than there is room for"),
        ("enumeration_of_many", "Hdf5", "a type with more members than there is room for"),
        ("header_of_many", "Hdf5", "a structure of more than 4096 bytes"),
        ("header_long", "Hdf5", "a structure of more than 4096 bytes"),
        ("records_of_no_length", "Hdf5", "a tree with records of length 0"),
        ("shape_bomb", "DataLength", "expected 4398046511104 bytes of F32, found 8 bytes"),
        ("shape_overflow", "ShapeOverflow", "[8589934592, 8589934592]"),
        ("shape_overflow_beside_0", "ShapeOverflow", "[0, 1099511627776, 1099511627776]"),
        ("shape_larger_than_data", "DataLength", "expected 12 bytes of F32, found 8 bytes"),
        ("shape_smaller_than_data", "DataLength", "expected 4 bytes of F32, found 8 bytes"),
        ("size_beyond_file", "Offsets", "found 96 to 1099511627872"),
        ("address_beyond_file", "Offsets", "found 1099511627776 to 1099511627784"),
        ("address_wraps", "Offsets", "found 18446744073709551612 to 18446744073709551615"),
        ("data_cut", "Offsets", "found 96 to 4194400"),
        ("unwritten", "Storage", "found no storage, because the data was never written"),
        ("compact", "Storage", "found compact storage"),
        ("chunked", "Storage", "found chunked storage"),
        ("chunked_newer", "Storage", "found chunked storage"),
        ("compressed", "Storage", "found chunked and compressed storage"),
        ("layout_unknown", "Hdf5", "\"/a/b\": expected a valid HDF5 file, found invalid data layout version: 9"),
        ("big_endian", "ElementType", "found big-endian floats of 4 bytes"),
        ("big_endian_integers", "ElementType", "found big-endian integers of 8 bytes"),
        ("float_of_another_kind", "ElementType", "found little-endian floats of 4 bytes"),
        ("float_of_no_bytes", "Hdf5", "zero-byte element size"),
        ("opaque_unexplained", "ElementType", "found 2 opaque bytes without the attribute dtype"),
        ("opaque_of_another_type", "ElementType", "found 2 opaque bytes without the attribute dtype"),
        ("strings", "ElementType", "found strings"),
        ("vax_floats", "ElementType", "found VAX-endian floats of 4 bytes"),
        ("times", "ElementType", "found times"),
        ("bit_fields", "ElementType", "found bit fields"),
        ("references", "ElementType", "found references"),
        ("compounds", "ElementType", "found compounds"),
        ("enumerations", "ElementType", "found enumerations"),
        ("arrays", "ElementType", "found arrays"),
        ("type_of_itself", "Hdf5", "\"/a\": expected a valid HDF5 file, found object header at 104 holds no message of type 0x0003"),
        ("type_beyond_file", "Hdf5", "\"/a\": expected a valid HDF5 file, found a structure that does not lie in the file"),
    ];
    check("hdf5", &table, |path| {
        let bytes = fs::read(path).unwrap();
        let dir = preset(&[("config.json", common::KERAS.as_bytes()), ("model.weights.h5", &bytes)]);
        let (variant, message) = refused(dir.path());
        assert!(message.contains("model.weights.h5"), "{message}");
        let in_memory =
            Preset::from_bytes(common::KERAS.as_bytes(), Region::from_vec("model.weights.h5", bytes));
        assert_eq!(describe(&in_memory.unwrap_err()), (variant.clone(), message.clone()));
        (variant, message)
    });
}

#[test]
fn wrong_keras_indices_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("not_json", "Malformed", "\"model.weights.json\": expected an object with a weight_map"),
        ("without_map", "Malformed", "missing field `weight_map`"),
        ("map_twice", "Malformed", "duplicate field `weight_map`"),
        ("layer_twice", "Malformed", "the key \"/layers/a/vars\" twice"),
        ("shard_is_number", "Malformed", "the name of a shard, or an array of names"),
        ("shards_are_numbers", "Malformed", "the name of a shard, or an array of names"),
        ("shards_nested", "Malformed", "the name of a shard, or an array of names"),
        ("name_parent", "OutsideDirectory", "\"../layer_missing/m.weights.h5\": expected a plain file name"),
        ("name_parent_in_list", "OutsideDirectory", "expected a plain file name"),
        ("name_absolute", "OutsideDirectory", "\"/etc/passwd\": expected a plain file name"),
        ("name_through_itself", "OutsideDirectory", "expected a plain file name"),
        ("name_drive", "OutsideDirectory", "expected a plain file name"),
        ("name_backslash", "OutsideDirectory", "expected a plain file name"),
        ("name_dot", "OutsideDirectory", "expected a plain file name"),
        ("name_dot_dot", "OutsideDirectory", "expected a plain file name"),
        ("name_nul", "OutsideDirectory", "expected a plain file name"),
        ("name_long", "OutsideDirectory", "expected a plain file name"),
        ("name_empty", "OutsideDirectory", "expected a plain file name"),
        ("name_in_subdirectory", "OutsideDirectory", "expected a plain file name"),
        ("shard_missing", "MissingFile", "expected n.weights.h5, found no such file"),
        ("shard_is_index", "Hdf5", "\"model.weights.json\""),
        ("shard_corrupt", "Hdf5", "\"n.weights.h5\": \"/\": expected a valid HDF5 file, found a truncated file"),
        ("layer_missing", "NotInShard", "\"m.weights.h5\": expected tensor \"layers/b/vars\""),
        ("layer_unlisted", "NotInIndex", "expected only the tensors that the index places there, found \"layers/b/vars\""),
        ("layer_elsewhere", "NotInShard", "\"n.weights.h5\": expected tensor \"layers/b/vars\""),
        ("variable_in_two_shards", "Duplicate", "\"n.weights.h5\": expected \"layers/a/vars/1\" once, found it again in \"m.weights.h5\""),
        ("variable_in_two_spellings", "Duplicate", "\"n.weights.h5\": expected \"layers/a/vars/0\" once"),
    ];
    check("keras_index", &table, |path| {
        let dir = preset(&[("config.json", common::KERAS.as_bytes())]);
        for path in entries(path).iter().filter(|path| path.is_file()) {
            fs::copy(path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        refused(dir.path())
    });
}

#[test]
fn unusual_hdf5_files_are_accepted() {
    for (name, tensors, copied) in [
        ("every_type", 6, 0),
        ("misaligned", 1, 8),
        ("newer", 1, 0),
        ("newer_dense", 2, 0),
        ("no_elements", 1, 0),
        ("no_tensors", 0, 0),
        ("rank_of_255", 1, 0),
        ("scalar", 1, 0),
    ] {
        let bytes = fs::read(specimens("hdf5_good").join(name).with_extension("h5")).unwrap();
        for access in [Access::Map, Access::Read] {
            let dir = preset(&[("config.json", common::KERAS.as_bytes()), ("model.weights.h5", &bytes)]);
            let preset = Preset::open(dir.path(), access).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((preset.tensors().len(), preset.bytes_copied()), (tensors, copied), "{name}");
        }
    }
}

#[test]
fn unusual_safetensors_files_are_accepted() {
    let paths = entries(&specimens("safetensors_good"));
    assert_eq!(paths.len(), 8);
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        for access in [Access::Map, Access::Read] {
            let dir = preset(&[("model.safetensors", &bytes)]);
            let preset = Preset::open(dir.path(), access).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            same_as_reference(&bytes, preset.tensors());
        }
    }
}

/// Every prefix of an HDF5 file is refused, also when the superblock declares the prefix's length.
#[test]
fn truncated_hdf5_files_never_panic() {
    let refuse = |path: &Path, bytes: &[u8]| {
        let message = parse_hdf5(bytes).expect_err(&format!("{path:?}: {} bytes", bytes.len())).to_string();
        assert!(!message.contains("panics"), "{path:?}: {} bytes: {message}", bytes.len());
    };
    let mut declared = 0;
    for path in entries(&specimens("hdf5_good")) {
        let bytes = fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            let mut cut = bytes.get(..len).unwrap().to_vec();
            refuse(&path, &cut);
            // Only superblocks of the older version are changed: the reader verifies the newer version's checksum.
            if bytes.get(8) == Some(&0) && len >= 96 {
                cut.get_mut(40..48).unwrap().copy_from_slice(&(len as u64).to_le_bytes());
                refuse(&path, &cut);
                declared += 1;
            }
        }
    }
    assert_eq!(declared, 4472, "prefixes that declare their length");
}

fn parse_hdf5(bytes: &[u8]) -> rachis_loader::Result<Vec<rachis_loader::Tensor>> {
    hdf5::parse(&Arc::new(Region::from_vec("cut", bytes.to_vec())))
}

/// No prefix of a file, and no file with one changed byte in its header, causes a panic. The format's own crate accepts
/// every file that is accepted here, with the same tensors.
#[test]
fn damaged_files_never_panic() {
    let mut accepted = 0;
    for path in entries(&specimens("safetensors_good")) {
        let bytes = fs::read(path).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        for len in 0..bytes.len() {
            assert!(parse(bytes.get(..len).unwrap()).is_err(), "a prefix of {len} bytes");
        }
        for at in 0..header {
            for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                *damaged.get_mut(at).unwrap() ^= change;
                if let Ok(tensors) = parse(&damaged) {
                    accepted += 1;
                    same_as_reference(&damaged, &tensors);
                }
            }
        }
    }
    assert_eq!(accepted, 773, "files whose damage has no effect on their validity");
}

fn parse(bytes: &[u8]) -> rachis_loader::Result<Vec<rachis_loader::Tensor>> {
    safetensors::parse(&Arc::new(Region::from_vec("damaged", bytes.to_vec())))
}

fn same_as_reference(bytes: &[u8], tensors: &[rachis_loader::Tensor]) {
    let reference = ::safetensors::SafeTensors::deserialize(bytes).expect("the reference accepts it too");
    assert_eq!(reference.len(), tensors.len());
    for tensor in tensors {
        let expected = reference.tensor(tensor.name()).unwrap();
        assert_eq!((tensor.shape(), tensor.bytes()), (expected.shape(), expected.data()));
        assert_eq!(tensor.dtype().to_string(), expected.dtype().to_string());
        assert_eq!(tensor.dtype().bits(), expected.dtype().bitsize());
    }
}
