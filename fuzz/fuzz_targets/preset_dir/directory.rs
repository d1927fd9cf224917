//! The directory, what lies around it, and whether that was read.
//!
//! The preset is `plain/other/rev` or `hub/snapshots/rev`, beside whose `snapshots` are `blobs`. In `outside` lie
//! secrets: files that a loader would like, with a marker in them that the input cannot know, and a time of access
//! that reading them would change. Once one was let in, there is a new marker: the fuzzer learns words from what is
//! compared with them.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::hash::{BuildHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::parts;
use crate::scratch::{Scratch, clear};

/// The names that the loader spells itself.
pub const FIXED: [&str; 5] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model.weights.h5",
    "model.weights.json",
];

/// Others, by which files are asked for here, and which indices name.
const NAMES: [&str; 12] = [
    "generation_config.json",
    "tokenizer.json",
    "vocab.txt",
    "modules.json",
    "1_Pooling/config.json",
    "pytorch_model.bin",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model_00000.weights.h5",
    "model_00001.weights.h5",
    "a",
    "b",
];

/// Where links lead beside those names.
const TARGETS: [&str; 16] = [
    "../../../outside/secret.json",
    "../../../outside/secret.safetensors",
    "../../../outside/secret.h5",
    "../../../outside",
    "../../blobs/0",
    "../../blobs/1",
    "../../blobs/../../outside/secret.json",
    "../../blobs",
    "1_Pooling",
    "nowhere",
    ".",
    "..",
    "/",
    "/dev/zero",
    "/dev/null",
    "./config.json",
];

/// What is asked for besides the names of the input, one of them at a time.
const TRICKS: [&str; 10] = [
    "../../../outside/secret.json",
    "1_Pooling/../../../../outside/secret.json",
    "1_Pooling/secret.json",
    "a/secret.json",
    "vocab.txt/",
    "./vocab.txt",
    "/dev/zero",
    "..",
    "",
    "a\0",
];

const SECRETS: [&str; 3] = ["secret.json", "secret.safetensors", "secret.h5"];

pub struct Directory {
    scratch: Scratch,
    /// Of the marker; see [`hash`].
    marker: Cell<u64>,
    /// Whether the file system remembers when a file was read.
    remembers: bool,
}

impl Directory {
    pub fn new() -> Directory {
        let scratch = Scratch::new("preset_dir");
        for dir in ["plain/other/rev", "plain/blobs", "hub/snapshots/rev", "hub/blobs", "outside"] {
            fs::create_dir_all(scratch.path().join(dir)).unwrap();
        }
        let mut directory = Directory { scratch, marker: Cell::new(0), remembers: true };
        directory.hide();
        // The first is read once, to see whether that shows.
        fs::read(directory.secret(SECRETS[0])).unwrap();
        directory.remembers = directory.was_read(SECRETS[0]);
        directory.hide();
        if !directory.remembers {
            eprintln!("the file system does not remember reads: only markers are looked for");
        }
        directory
    }

    /// The preset that the input is for.
    pub fn path(&self, input: &[u8]) -> PathBuf {
        self.scratch.path().join(place(input))
    }

    /// Makes the directory what the input says: parts of a name, a kind, and what there is. Returns the names to ask
    /// for.
    pub fn fill(&self, input: &[u8]) -> Vec<String> {
        let (dir, blobs) = (self.path(input), self.path(input).join("../../blobs"));
        clear(&dir);
        clear(&blobs);
        let trick = usize::from(input.first().copied().unwrap_or(0)) / 2 % TRICKS.len();
        let mut names = vec![TRICKS[trick].to_owned()];
        for part in parts::parts(input).into_iter().skip(1) {
            let [name, kind, content @ ..] = part else { continue };
            let known = FIXED.iter().chain(&NAMES).nth(usize::from(*name) % 32);
            let (name, content) = match known {
                Some(name) => (OsStr::new(name), content),
                // A name of the input's own, on a line before the content.
                None => {
                    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
                    (OsStr::from_bytes(&content[..end]), content.get(end + 1..).unwrap_or_default())
                }
            };
            names.extend(name.to_str().map(str::to_owned));
            let path = dir.join(name);
            let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            let inside = inside && name.len() < 256 && !name.as_bytes().contains(&0);
            if !inside || path == dir || path.symlink_metadata().is_ok() {
                continue;
            }
            // Not through a link.
            let parent = path.parent().unwrap();
            if parent != dir && parent.symlink_metadata().map_or(true, |found| !found.is_dir()) {
                if parent.parent() != Some(&dir) || fs::create_dir(parent).is_err() {
                    continue;
                }
            }
            // Names that the file system has no room for are passed over.
            let _ = match kind % 16 {
                0..4 => fs::write(&path, content),
                4..8 => fs::write(&path, parts::safetensors(content)),
                8..10 => fs::write(&path, parts::hdf5(content)),
                10..12 => symlink(target(content), &path),
                12 => symlink(self.secret(SECRETS[usize::from(kind / 16) % 3]), &path),
                13 => fs::create_dir(&path),
                kind => {
                    let blob = (kind - 14).to_string();
                    fs::write(blobs.join(&blob), content)
                        .and_then(|()| symlink(Path::new("../../blobs").join(blob), &path))
                }
            };
        }
        names.sort();
        names.dedup();
        names
    }

    /// Checks that no secret was read, except by the names that the loader spells: whoever chose the directory has
    /// chosen where they lead, too.
    pub fn check_unread(&self, dir: &Path) {
        if self.is_vouched_for(dir) {
            self.hide();
        } else if self.remembers {
            SECRETS.iter().for_each(|name| assert!(!self.was_read(name), "{name} was read"));
        }
    }

    /// Checks that what was opened by a name that the loader does not spell lies in the directory, or is a blob of its
    /// snapshot.
    pub fn check_inside(&self, dir: &Path, name: &str) {
        let blobs = self.scratch.path().join("hub/blobs");
        let (real, snapshot) =
            (fs::canonicalize(dir.join(name)).unwrap(), dir.ends_with("hub/snapshots/rev"));
        let inside = real.starts_with(dir) || snapshot && real.starts_with(blobs);
        assert!(inside, "{name:?} leads to {real:?}");
    }

    /// Checks that the marker is nowhere.
    pub fn check_bytes(&self, bytes: &[u8]) {
        let marked = bytes.windows(16).any(|window| hash(window) == self.marker.get());
        assert!(!marked || self.leads_out(), "a secret came in");
    }

    pub fn check_text(&self, text: &str) {
        self.check_bytes(text.as_bytes());
    }

    fn leads_out(&self) -> bool {
        ["plain/other/rev", "hub/snapshots/rev"]
            .iter()
            .any(|dir| self.is_vouched_for(&self.scratch.path().join(dir)))
    }

    fn is_vouched_for(&self, dir: &Path) -> bool {
        let outside = self.scratch.path().join("outside");
        let target = |name: &&str| fs::canonicalize(dir.join(name));
        FIXED.iter().filter_map(|name| target(name).ok()).any(|target| target.starts_with(&outside))
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.scratch.path().join("outside").join(name)
    }

    /// Writes the secrets, with another marker, as if nobody had read them.
    fn hide(&self) {
        let marker = format!("{:016x}", RandomState::new().build_hasher().finish());
        self.marker.set(hash(marker.as_bytes()));
        let json = format!(r#"{{"model_type":"{marker}","{marker}":"{marker}"}}"#);
        let header = format!(r#"{{"{marker}":{{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}}}"#);
        let h5 = include_bytes!("../../../loader/tests/specimens/hdf5_good/scalar.h5");
        let contents = [
            json.into_bytes(),
            parts::safetensors((header + &marker).as_bytes()),
            [&h5[..], marker.as_bytes()].concat(),
        ];
        for (name, content) in SECRETS.iter().zip(contents) {
            fs::write(self.secret(name), content).unwrap();
            File::open(self.secret(name)).unwrap().set_times(never()).unwrap();
        }
    }

    fn was_read(&self, name: &str) -> bool {
        fs::metadata(self.secret(name)).unwrap().accessed().unwrap() != long_ago()
    }
}

/// The first byte says where the preset is, and which trick is tried.
fn place(input: &[u8]) -> &'static str {
    if input.first().is_some_and(|byte| byte % 2 == 1) { "hub/snapshots/rev" } else { "plain/other/rev" }
}

/// Where a link leads: a place by its number, or by its name.
fn target(content: &[u8]) -> &Path {
    match content {
        [number] => {
            let mut known = FIXED.iter().chain(&NAMES).chain(&TARGETS).cycle();
            Path::new(known.nth(usize::from(*number)).unwrap())
        }
        name => Path::new(OsStr::from_bytes(name)),
    }
}

/// Reads show when the last is older than the last write.
fn never() -> FileTimes {
    FileTimes::new().set_accessed(long_ago()).set_modified(long_ago() + Duration::from_secs(1))
}

fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 20)
}

/// A number from which a fuzzer that watches comparisons does not learn the bytes.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}
