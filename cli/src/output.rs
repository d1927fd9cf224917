//! Output files: what stands at the path stays what it is, and a new file is complete or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rachis::loader::Preset;

use crate::Result;

/// Writes a file by `write`.
///
/// A pipe, a device, or what a symbolic link leads to is written in place. Otherwise the file is written beside its path and
/// renamed, so that a failure leaves no part of it. Its permissions are those that the process gives to new files, or those
/// of the file that it replaces.
pub fn write(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let named = |error: io::Error| format!("{}: {error}", path.display());
    let existing = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(named(error).into()),
    };
    let in_place = existing.as_ref().is_some_and(|metadata| !metadata.is_file());
    if in_place {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(named)?;
        return Ok(finish(file, write).map(drop).map_err(named)?);
    }
    let partial = Partial::create(path).map_err(named)?;
    let file = OpenOptions::new().write(true).open(&partial.0).map_err(named)?;
    if let Some(existing) = existing {
        file.set_permissions(existing.permissions()).map_err(named)?;
    }
    finish(file, write).map_err(named)?;
    Ok(partial.rename(path).map_err(named)?)
}

/// Returns an error for an output that is one of a model's own files.
pub fn refuse_files_of(preset: &Preset, path: &Path) -> Result<()> {
    let (Ok(output), Ok(dir)) = (path.canonicalize(), preset.dir().canonicalize()) else { return Ok(()) };
    let files = preset.files().iter().map(|file| file.name.as_str()).chain(["config.json"]);
    let own = files.filter_map(|name| dir.join(name).canonicalize().ok()).any(|file| file == output);
    if own { Err(format!("{}: is a file of the model", path.display()).into()) } else { Ok(()) }
}

fn finish(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

/// An unfinished file, which is removed unless it is renamed.
struct Partial(PathBuf);

impl Partial {
    /// Creates an empty file beside `path`.
    fn create(path: &Path) -> io::Result<Partial> {
        let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::IsADirectory))?;
        for attempt in 0..100 {
            let mut partial = std::ffi::OsString::from(".");
            partial.push(name);
            partial.push(format!(".{}.{attempt}", std::process::id()));
            let partial = path.with_file_name(partial);
            match OpenOptions::new().write(true).create_new(true).open(&partial) {
                Ok(_) => return Ok(Partial(partial)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After renaming there is no such file any more.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_complete_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let fail = |out: &mut dyn Write| out.write_all(b"half").and(Err(io::Error::other("broken")));
        let error = write(&path, fail).unwrap_err().to_string();
        assert!(error.contains("out: broken"), "{error}");
        assert!(names(dir.path()).is_empty());
        write(&path, |out| out.write_all(b"whole")).unwrap();
        assert!(write(&path, fail).is_err());
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"whole".to_vec(), vec!["out".to_owned()])
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("out"), dir.path().join("target"));
        symlink(&target, &link).unwrap();
        write(&link, |out| out.write_all(b"new")).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        write(&link, |out| out.write_all(b"x")).unwrap();
        write(&target, |out| out.write_all(b"y")).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"y");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["out", "target"]);
    }

    #[test]
    fn a_directory_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    }
}
