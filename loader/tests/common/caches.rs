//! The caches of huggingface_hub and kagglehub, imitated in a temporary directory.

#![allow(dead_code, reason = "every test binary uses some of them")]

use std::fs;
use std::path::PathBuf;

use rachis_loader::{Caches, Error, Handle};

use crate::common::{CONFIG, KERAS, one_tensor};

/// The hash of a commit.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Both caches, in a temporary directory. Beside them lies the preset `outside`, which no handle may reach.
pub struct TestCaches {
    pub dir: tempfile::TempDir,
    pub caches: Caches,
}

impl TestCaches {
    pub fn new() -> TestCaches {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::new(dir.path().join("hub"), dir.path().join("kaggle"));
        let test = TestCaches { dir, caches };
        test.write("outside/config.json", CONFIG);
        test.write("outside/model.safetensors", one_tensor("secret", &[1.0]));
        test.write("outside/ref", COMMIT);
        test
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

    /// Writes a snapshot as huggingface_hub writes it: symlinks into `blobs`, and a ref without a line break.
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

    /// Writes a version into Kaggle's cache, without a mark of completeness.
    pub fn version(&self, id: &str, version: u32) -> String {
        let dir = format!("kaggle/models/{id}/{version}");
        self.write(&format!("{dir}/config.json"), KERAS);
        self.write(&format!("{dir}/model.weights.h5"), b"not read here");
        dir
    }
}

/// Checks that the message of an error is one short line, and returns it.
pub fn one_line(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains(['\n', '\r', '\u{1b}']) && text.len() < 1200, "{text:?}");
    text
}
