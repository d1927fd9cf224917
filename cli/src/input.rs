//! Input files: regular ones whole, pipes and devices up to a limit.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::Result;

/// Upper limit of the bytes that are read from a pipe or a device.
const LARGEST_STREAM: u64 = 32 << 20;

/// Reads a file. A pipe that nobody writes to is an error, and not waited for.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(named)?;
    if metadata.is_file() {
        return Ok(fs::read(path).map_err(named)?);
    }
    let mut bytes = Vec::new();
    let mut stream = open_without_waiting(path).map_err(named)?;
    let mut first = [0; 1];
    let stream = match stream.read(&mut first) {
        Ok(0) => return Err(format!("{}: is empty, or nothing writes to it", path.display()).into()),
        Ok(_) => {
            bytes.extend(first);
            File::open(path).map_err(named)?
        }
        // There is a writer, so that opening it again does not wait.
        Err(error) if error.kind() == ErrorKind::WouldBlock => File::open(path).map_err(named)?,
        Err(error) => return Err(named(error).into()),
    };
    stream.take(LARGEST_STREAM + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > LARGEST_STREAM {
        return Err(format!(
            "{}: has more than {LARGEST_STREAM} bytes, which only a regular file may have",
            path.display()
        )
        .into());
    }
    Ok(bytes)
}

/// Opens a pipe without waiting for its writer.
fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // O_NONBLOCK of the system's `fcntl.h`.
        options.custom_flags(if cfg!(target_os = "linux") { 0o4000 } else { 0x4 });
    }
    options.open(path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn endless_devices_and_pipes_without_a_writer_are_errors() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("/dev/zero: has more than"), "{error}");
        let error = read(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("/dev/null: is empty"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).unwrap_err().to_string().contains("nothing writes to it"));
    }

    #[test]
    fn a_pipe_with_a_writer_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&pipe, vec![7; 1 << 20]).unwrap());
            // The writer waits for a reader, so that it is there or not yet.
            let bytes = loop {
                if let Ok(bytes) = read(&pipe) {
                    break bytes;
                }
            };
            assert_eq!(bytes.len(), 1 << 20);
        });
    }
}
