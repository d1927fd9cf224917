//! Both caches of Python's tools, imitated in a temporary directory.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::fs;
use std::path::PathBuf;

use rachis_loader::{Caches, Error, Handle};

use crate::common::{CONFIG, KERAS, one_tensor};

/// The hash of a commit.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Both caches, in a directory of their own, with a neighbour that no handle may reach.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub caches: Caches,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().join("hub"), dir.path().join("kaggle"));
        let place = Place { dir, caches };
        place.write("outside/config.json", CONFIG);
        place.write("outside/model.safetensors", one_tensor("secret", &[1.0]));
        place.write("outside/ref", COMMIT);
        place
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    pub fn resolve(&self, name: &str) -> Result<PathBuf, Error> {
        Handle::parse(name)?.resolve(&self.caches)
    }

    /// A snapshot as huggingface_hub writes it: symlinks into `blobs`, and a ref without a line break.
    #[cfg(unix)]
    pub fn snapshot(&self, repo: &str, reference: &str, commit: &str, files: &[(&str, &[u8])]) {
        let repo = format!("hub/models--{}", repo.replace('/', "--"));
        self.write(&format!("{repo}/refs/{reference}"), commit);
        for (name, content) in files {
            let blob = format!("{commit}{}", name.replace(['/', '.'], ""));
            self.write(&format!("{repo}/blobs/{blob}"), content);
            let link = self.path(&format!("{repo}/snapshots/{commit}/{name}"));
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let up = "../".repeat(2 + name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), link).unwrap();
        }
    }

    /// A version in Kaggle's cache, without any mark.
    pub fn version(&self, id: &str, version: u32) -> String {
        let dir = format!("kaggle/models/{id}/{version}");
        self.write(&format!("{dir}/config.json"), KERAS);
        self.write(&format!("{dir}/model.weights.h5"), b"not read here");
        dir
    }
}

/// The message of an error, which is one short line.
pub fn one_line(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains(['\n', '\r', '\u{1b}']) && text.len() < 1200, "{text:?}");
    text
}
