//! Any bytes as a whole preset directory, with links in it and out of it: a value or one short error, the same by
//! both accesses; nothing outside is read; memory stays small; and a tiny model computes the same from both.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rachis::GenerationConfig;
use rachis_loader::{Access, Config, Data, Error, Preset};
use rachis_testkit::CountingAllocator;

#[path = "preset_dir/directory.rs"]
mod directory;
#[path = "preset_dir/models.rs"]
mod models;
#[path = "files/parts.rs"]
mod parts;
#[path = "files/scratch.rs"]
mod scratch;

use directory::Directory;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What opening may allocate in all. Inputs are of a few KiB.
const MOST_BYTES: u64 = 16 << 20;

thread_local! {
    static DIRECTORY: Directory = Directory::new();
}

fuzz_target!(|bytes: &[u8]| {
    DIRECTORY.with(|directory| {
        let names = directory.fill(bytes);
        let dir = directory.path(bytes);
        check(directory, &dir, &names);
        directory.check_unread(&dir);
    });
});

fn check(directory: &Directory, dir: &Path, names: &[String]) {
    let config = small(|| Preset::open_config(dir));
    let [mapped, read] = [Access::Map, Access::Read].map(|access| small(|| Preset::open(dir, access)));
    let message = |result: &Result<Preset, Error>| {
        result.as_ref().err().map(|error| checked(directory, &error.to_string()))
    };
    assert_eq!(message(&mapped), message(&read));
    if let Some(found) = message(&config) {
        assert_eq!(message(&mapped), Some(found), "the configuration is looked at first");
    }
    if let Ok(config) = &config {
        assert!(config.tensors().is_empty() && config.files().is_empty());
        names.iter().for_each(|name| beside(directory, config, name));
        if let Err(error) = GenerationConfig::from_preset(config) {
            checked(directory, &error.to_string());
        }
        if mapped.is_err() {
            models::random(directory, config);
        }
    }
    if let (Ok(mapped), Ok(read)) = (&mapped, &read) {
        same_files(directory, dir, mapped, read);
        tensors(directory, dir, mapped, read);
        models::loaded(directory, mapped, read);
    }
}

/// What `open` gives, and allocates in proportion.
fn small<T>(open: impl FnOnce() -> T) -> T {
    let (result, counts) = CountingAllocator::measure(open);
    assert!(counts.bytes < MOST_BYTES, "{counts:?}");
    result
}

/// A message, if it is one short line without a secret.
fn checked(directory: &Directory, message: &str) -> String {
    assert!(!message.contains('\n') && message.len() < 8000, "{message:?}");
    directory.check_text(message);
    message.to_owned()
}

fn same_files(directory: &Directory, dir: &Path, mapped: &Preset, read: &Preset) {
    assert_eq!(mapped.files().len(), read.files().len());
    for (mapped, read) in mapped.files().iter().zip(read.files()) {
        if !directory::FIXED.contains(&&*mapped.name) {
            directory.check_inside(dir, &mapped.name);
        }
        assert_eq!((&mapped.name, mapped.len), (&read.name, read.len));
        assert_eq!((mapped.mapped, read.mapped), (mapped.len > 0, false));
        assert_eq!(fs::metadata(dir.join(&mapped.name)).unwrap().len(), mapped.len as u64);
    }
    assert_eq!((read.bytes_mapped(), read.bytes_copied()), (0, mapped.bytes_copied()));
}

/// Every tensor is a range of its file.
fn tensors(directory: &Directory, dir: &Path, mapped: &Preset, read: &Preset) {
    let files: Vec<_> = mapped.files().iter().map(|file| fs::read(dir.join(&file.name)).unwrap()).collect();
    assert_eq!(mapped.tensors().len(), read.tensors().len());
    assert!(mapped.tensors().is_sorted_by(|a, b| a.name() < b.name()), "every name once");
    for (tensor, other) in mapped.tensors().iter().zip(read.tensors()) {
        directory.check_text(tensor.name());
        directory.check_bytes(tensor.bytes());
        assert_eq!((tensor.name(), tensor.file()), (other.name(), other.file()));
        assert_eq!((tensor.shape(), tensor.dtype()), (other.shape(), other.dtype()));
        assert_eq!((tensor.file_offset(), tensor.copied()), (other.file_offset(), other.copied()));
        let file = mapped.files().iter().position(|file| Some(&*file.name) == tensor.file()).unwrap();
        let place = tensor.file_offset().unwrap()..tensor.file_offset().unwrap() + tensor.byte_len();
        assert_eq!(files[file].get(place), Some(tensor.bytes()));
        assert_eq!(tensor.bytes(), other.bytes());
        let elements: usize = tensor.shape().iter().product();
        assert_eq!(tensor.byte_len() * 8, elements * tensor.dtype().bits());
        let found = match tensor.data() {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
            Data::F16(data) => data.len(),
            _ => elements,
        };
        assert_eq!(found, elements);
        assert_eq!(mapped.require(tensor.name()).unwrap().file_offset(), tensor.file_offset());
    }
}

/// Reads a file beside the weights in every way.
fn beside(directory: &Directory, preset: &Preset, name: &str) {
    const LIMIT: u64 = 4096;
    let text = small(|| preset.read_text(name, LIMIT));
    let json = small(|| preset.read_json(name));
    let config = small(|| preset.read_config(name));
    let errors = [text.as_ref().err(), json.as_ref().err(), config.as_ref().err()];
    errors.into_iter().flatten().for_each(|error| drop(checked(directory, &error.to_string())));
    let outside = errors.map(|error| matches!(error, Some(Error::OutsideDirectory { .. })));
    assert!(outside == [outside[0]; 3], "{name:?}: one rule for all");
    if matches!(text, Ok(Some(_))) || matches!(json, Ok(Some(_))) || matches!(config, Ok(Some(_))) {
        directory.check_inside(preset.dir(), name);
    }
    if let Ok(Some(text)) = &text {
        assert!(text.len() as u64 <= LIMIT);
        directory.check_text(text);
        assert_eq!(*text, fs::read_to_string(preset.dir().join(name)).unwrap());
        assert_eq!(json.is_ok(), serde_json::from_str::<serde_json::Value>(text).is_ok());
    }
    if let Ok(Some(json)) = &json {
        directory.check_text(&json.to_string());
        assert_eq!(config.is_ok(), json.is_object());
    }
    if let Ok(Some(config)) = &config {
        fields(directory, config);
    }
}

fn fields(directory: &Directory, config: &Config) {
    for (name, value) in config.fields() {
        let errors = [config.usize(name).err(), config.str(name).err(), config.opt_usizes(name).err()];
        errors.iter().flatten().for_each(|error| drop(checked(directory, &error.to_string())));
        directory.check_text(&value.to_string());
    }
}
