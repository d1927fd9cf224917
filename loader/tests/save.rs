//! Writing a preset: what is written is read back, and a failure leaves the old files.

mod common;

use std::fs;
use std::path::Path;

use common::entries;
use rachis_loader::serde_json::{Map, Value};
use rachis_loader::{Access, Error, NewTensor, Preset, TensorDtype, save_preset};

fn config() -> Map<String, Value> {
    [("model_type".to_owned(), Value::from("bert"))].into_iter().collect()
}

/// Writes tensors whose bytes are all `fill`.
fn save(dir: &Path, tensors: &[NewTensor<'_>], fill: u8) -> Result<(), Error> {
    save_preset(dir, config(), tensors, |i, sink| {
        let elements: usize = tensors[i].shape.iter().product();
        sink.put(&vec![fill; elements * tensors[i].dtype.bits() / 8])
    })
}

/// The names of a directory's entries, hidden ones included, sorted.
fn names(dir: &Path) -> Vec<String> {
    entries(dir).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

const TENSORS: [NewTensor<'static>; 3] = [
    NewTensor { name: "odd", dtype: TensorDtype::F16, shape: &[3] },
    NewTensor { name: "whole", dtype: TensorDtype::F32, shape: &[4, 8] },
    NewTensor { name: "half", dtype: TensorDtype::Bf16, shape: &[32] },
];

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on/the/way");
    save(&dir, &TENSORS, 0x3c).unwrap();
    assert_eq!(names(&dir), ["config.json", "model.safetensors"]);
    let preset = Preset::open(&dir, Access::Map).unwrap();
    assert_eq!(preset.config().str("model_type").unwrap(), "bert");
    assert_eq!((preset.tensors().len(), preset.bytes_copied()), (3, 0));
    for expected in TENSORS {
        let tensor = preset.require(expected.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (expected.dtype, expected.shape));
        assert!(tensor.bytes().iter().all(|byte| *byte == 0x3c));
        // "odd" has 6 bytes; the others have a multiple of 64, and so start at a multiple of 64.
        let offset = tensor.file_offset().unwrap();
        assert!(expected.name == "odd" || offset.is_multiple_of(64), "{}: {offset}", expected.name);
    }
}

#[test]
fn a_failure_leaves_the_old_files() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &TENSORS, 1).unwrap();
    let old = fs::read(dir.path().join("model.safetensors")).unwrap();
    let mapped = Preset::open(dir.path(), Access::Map).unwrap();

    let fails: [(&str, usize); 3] = [("too few", 63), ("too many", 65), ("none", 0)];
    for (name, len) in fails {
        let tensor = NewTensor { name: "a", dtype: TensorDtype::F32, shape: &[16] };
        let error = save_preset(dir.path(), config(), &[tensor], |_, sink| sink.put(&vec![0; len]));
        assert!(matches!(error, Err(Error::DataLength { .. })), "{name}: {error:?}");
        assert_eq!(names(dir.path()), ["config.json", "model.safetensors"], "{name}");
        assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), old, "{name}");
    }

    // A preset that maps a replaced file keeps the old one.
    save(dir.path(), &TENSORS, 2).unwrap();
    assert!(mapped.require("whole").unwrap().bytes().iter().all(|byte| *byte == 1));
    let reopened = Preset::open(dir.path(), Access::Map).unwrap();
    assert!(reopened.require("whole").unwrap().bytes().iter().all(|byte| *byte == 2));
}

#[test]
fn the_error_of_the_callback_is_returned() {
    #[derive(Debug)]
    enum Stop {
        Loader,
        Caller,
    }
    impl From<Error> for Stop {
        fn from(_: Error) -> Stop {
            Stop::Loader
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let stopped = save_preset(dir.path(), config(), &TENSORS, |_, _| Err(Stop::Caller));
    assert!(matches!(stopped, Err(Stop::Caller)));
    let incomplete = save_preset(dir.path(), config(), &TENSORS, |_, _| Ok::<(), Stop>(()));
    assert!(matches!(incomplete, Err(Stop::Loader)));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn wrong_tensors_are_refused() {
    let refuse = |tensors: &[NewTensor<'_>]| {
        let dir = tempfile::tempdir().unwrap();
        let error = save_preset(dir.path(), config(), tensors, |_, _| -> Result<(), Error> {
            panic!("nothing is written")
        });
        assert!(names(dir.path()).is_empty());
        error.unwrap_err()
    };
    let tensor = |dtype, shape| NewTensor { name: "a", dtype, shape };
    let twice = [tensor(TensorDtype::F32, &[1]); 2];
    assert!(matches!(refuse(&twice), Error::Duplicate { tensor, .. } if tensor == "a"));
    let large = [tensor(TensorDtype::F32, &[usize::MAX, 2])];
    assert!(matches!(refuse(&large), Error::ShapeOverflow { .. }));
    for dtype in TensorDtype::ALL {
        if !matches!(dtype, TensorDtype::F32 | TensorDtype::Bf16 | TensorDtype::F16) {
            assert!(matches!(refuse(&[tensor(*dtype, &[8])]), Error::Entry { .. }), "{dtype}");
        }
    }
}
