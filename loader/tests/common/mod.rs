//! Helpers of the tests: a counting allocator, and preset directories.

#![allow(dead_code, reason = "every test binary uses some of them")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

pub const CONFIG: &str = r#"{"model_type": "bert"}"#;
pub const KERAS: &str = r#"{"registered_name": "keras_hub>BertBackbone", "config": {"num_layers": 2}}"#;

/// The directory of specimens of one kind, written by `specimens/make.py`.
pub fn specimens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specimens").join(name)
}

/// A fixture, written by transformers or KerasHub.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/fixtures")).join(name)
}

/// The entries of a directory, sorted.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A temporary directory with a configuration and these files.
pub fn preset(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    for (name, content) in files {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

/// A whole safetensors file of one F32 tensor.
pub fn one_tensor(name: &str, values: &[f32]) -> Vec<u8> {
    let len = values.len() * 4;
    let header =
        format!(r#"{{"{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{len}]}}}}"#, values.len());
    let header = format!("{header}{}", " ".repeat(header.len().next_multiple_of(8) - header.len()));
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(data).collect()
}

/// The system's allocator with counters for each thread, so that tests do not disturb one another.
pub struct Counting;

#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// The total size of all allocations, in bytes.
    pub total: usize,
    /// The largest number of bytes in use at once.
    pub peak: usize,
}

/// Runs `f`, and counts what it allocates on this thread.
pub fn count<T>(f: impl FnOnce() -> T) -> (T, Count) {
    let start = LIVE.get();
    TOTAL.set(0);
    PEAK.set(start);
    let value = f();
    let peak = usize::try_from(PEAK.get() - start).unwrap();
    (value, Count { total: TOTAL.get(), peak })
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

fn record(allocated: usize, freed: usize) {
    // While a thread ends, its counters no longer exist, and nothing is counted.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + allocated as isize - freed as isize);
        PEAK.set(PEAK.get().max(live.get()));
        TOTAL.set(TOTAL.get().saturating_add(allocated));
    });
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every method passes its arguments to the system's allocator unchanged and returns its result. The counters are
// thread-local cells without destructors, which neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        record(layout.size(), 0);
        // SAFETY: `System` has the same contract as this method, and our caller fulfils it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        record(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        record(size, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        record(0, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
