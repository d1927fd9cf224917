//! `-`: one text a line from standard input, in chunks of bounded memory, with a progress bar on a terminal.

use std::io::{self, BufRead, IsTerminal, Read, StdinLock};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Result;

/// A chunk has at most this many lines, or this many bytes and the line that exceeds them.
const CHUNK_LINES: usize = 512;
const CHUNK_BYTES: usize = 4 << 20;

/// Upper limit of the bytes of a line.
const LARGEST_LINE: u64 = 64 << 20;

/// Texts in chunks: those of the command line at once, or the lines of standard input.
pub struct Texts<'a> {
    source: Source<'a>,
    progress: ProgressBar,
}

enum Source<'a> {
    Arguments(&'a [String]),
    Lines { input: StdinLock<'static>, number: u64, bytes: u64 },
}

impl<'a> Texts<'a> {
    /// The texts of the command line, or the lines of standard input for a single `-`.
    pub fn new(arguments: &'a [String]) -> Texts<'a> {
        if arguments == ["-"] {
            let source = Source::Lines { input: io::stdin().lock(), number: 0, bytes: 0 };
            return Texts { source, progress: progress() };
        }
        Texts { source: Source::Arguments(arguments), progress: ProgressBar::hidden() }
    }

    /// All texts.
    pub fn all(mut self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            all.extend(chunk);
        }
        Ok(all)
    }

    /// The next texts; `None` at the end.
    ///
    /// # Errors
    /// When standard input cannot be read, has no text at all, or has a line that is too long or not UTF-8.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<String>>> {
        let (input, number, all_bytes) = match &mut self.source {
            Source::Arguments(texts) => {
                let chunk = std::mem::take(texts).to_vec();
                return Ok((!chunk.is_empty()).then_some(chunk));
            }
            Source::Lines { input, number, bytes } => (input, number, bytes),
        };
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
            let mut line = Vec::new();
            let read = input.by_ref().take(LARGEST_LINE + 1).read_until(b'\n', &mut line);
            if read.map_err(|error| format!("standard input: {error}"))? == 0 {
                break;
            }
            *number += 1;
            bytes += line.len();
            *all_bytes += line.len() as u64;
            if line.len() as u64 > LARGEST_LINE {
                let message = format!("standard input: line {number} has more than {LARGEST_LINE} bytes");
                return Err(message.into());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
                line.pop_if(|last| *last == b'\r');
            }
            let wrong = |_| format!("standard input: line {number} is not UTF-8");
            chunk.push(String::from_utf8(line).map_err(wrong)?);
        }
        match *number {
            0 => Err("standard input has no text".into()),
            _ => Ok((!chunk.is_empty()).then_some(chunk)),
        }
    }

    /// Shows that the texts of the last chunk are done.
    pub fn done(&self, texts: usize) {
        match &self.source {
            Source::Lines { bytes, .. } if self.progress.length().is_some() => {
                self.progress.set_position(*bytes);
            }
            _ => self.progress.inc(texts as u64),
        }
    }
}

impl Drop for Texts<'_> {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

/// The progress through standard input: in bytes where it is a file, else in texts. It draws to standard error, when
/// that is a terminal, and when standard input is not: then somebody is typing there.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    let file = std::fs::metadata("/dev/stdin").ok().filter(std::fs::Metadata::is_file);
    let (length, template) = match file {
        Some(file) => (Some(file.len()), "{bar:40} {percent:>3}% {elapsed} of about {duration}"),
        None => (None, "{spinner} {human_pos} texts in {elapsed}"),
    };
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
