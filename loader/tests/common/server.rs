//! An HTTP server on the loopback interface that imitates a Hugging Face hub with one repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The prefix of the addresses that requests for large files are redirected to.
pub const CDN: &str = "/cdn/";

/// The parts of a request that the tests inspect.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What the server serves, how it misbehaves, and which requests it received.
struct State {
    repo: String,
    files: BTreeMap<String, Vec<u8>>,
    commit: String,
    token: Option<String>,
    cut_after: Option<usize>,
    ranges: bool,
    redirected: Option<String>,
    header: Option<(String, String)>,
    requests: Vec<Request>,
}

/// A running server. Dropping it stops it.
pub struct Server {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(repo: &str, files: &[(&str, &[u8])]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            repo: repo.to_owned(),
            files: files.iter().map(|(name, content)| (name.to_string(), content.to_vec())).collect(),
            commit: COMMIT.to_owned(),
            token: None,
            cut_after: None,
            ranges: true,
            redirected: None,
            header: None,
            requests: Vec::new(),
        };
        let (state, stop) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        let address = listener.local_addr().unwrap();
        let thread = {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // A client may close the connection at any time.
                    let _ = answer(&stream, &mut state.lock().unwrap());
                }
            })
        };
        Server { address, state, stop, thread: Some(thread) }
    }

    /// The server's address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks every connection after `len` bytes of a file.
    pub fn cut_after(&self, len: usize) {
        self.state().cut_after = Some(len);
    }

    /// Answers the next request for a range that does not start at 0 with the whole file.
    pub fn ignore_ranges(&self) {
        self.state().ranges = false;
    }

    /// Redirects requests for this file to another address, as the hub does for large files.
    pub fn redirect(&self, file: &str) {
        self.state().redirected = Some(file.to_owned());
    }

    /// Denies requests without this token.
    pub fn require_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// Replaces the value of a header in the answers for all files.
    pub fn replace_header(&self, header: &str, value: &str) {
        self.state().header = Some((header.to_owned(), value.to_owned()));
    }

    /// Claims that the repository is at this commit.
    pub fn claim_commit(&self, commit: &str) {
        self.state().commit = commit.to_owned();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The names of the requested files, each once, sorted.
    pub fn requested_files(&self) -> Vec<String> {
        let prefix = format!("/org/tiny/resolve/{COMMIT}/");
        let requests = self.requests();
        let names = requests.iter().filter_map(|request| request.path.strip_prefix(&prefix));
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The ranges of a file's content that were requested.
    pub fn requested_ranges(&self, file: &str) -> Vec<String> {
        let requests = self.requests().into_iter().filter(|request| request.path.ends_with(file));
        requests.filter_map(|request| request.range).filter(|range| range != "bytes=0-0").collect()
    }

    /// The ETag of a file.
    pub fn etag(&self, file: &str) -> String {
        etag(file, &self.state().files[file])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A fake ETag: a checksum in place of the content's hash.
fn etag(file: &str, content: &[u8]) -> String {
    let sum = file.bytes().chain(content.iter().copied());
    let sum = sum.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}{sum:016x}{:08x}", content.len())
}

fn answer(stream: &TcpStream, state: &mut State) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, range: None, authorization: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    state.requests.push(request.clone());

    let bearer = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if bearer.is_some() && bearer != request.authorization {
        return respond(stream, "401 Unauthorized", &[], b"Invalid username or password.", None);
    }
    let info = format!("/api/models/{}/revision/", state.repo);
    let resolve = format!("/{}/resolve/{COMMIT}/", state.repo);
    if request.path.starts_with(&info) {
        let siblings: Vec<_> =
            state.files.keys().map(|name| format!(r#"{{"rfilename":{name:?}}}"#)).collect();
        let text = format!(r#"{{"id":"x","sha":{:?},"siblings":[{}]}}"#, state.commit, siblings.join(","));
        return respond(stream, "200 OK", &[], text.as_bytes(), None);
    }
    let name = request.path.strip_prefix(&resolve).or_else(|| request.path.strip_prefix(CDN));
    let Some((name, content)) = name.and_then(|name| state.files.get_key_value(name)) else {
        return respond(stream, "404 Not Found", &[], b"Entry not found", None);
    };

    let redirect =
        state.redirected.as_ref().is_some_and(|file| file == name) && !request.path.starts_with(CDN);
    if redirect {
        let headers = [
            ("X-Linked-ETag".to_owned(), format!("\"{}\"", etag(name, content))),
            ("ETag".to_owned(), "\"of-the-pointer\"".to_owned()),
            ("X-Linked-Size".to_owned(), content.len().to_string()),
            ("X-Repo-Commit".to_owned(), state.commit.clone()),
            ("Location".to_owned(), format!("http://localhost:{}{CDN}{name}", stream.local_addr()?.port())),
        ];
        return respond(stream, "302 Found", &headers, b"", None);
    }

    let (from, to) = range(request.range.as_deref(), content.len());
    let mut headers = vec![
        ("ETag".to_owned(), format!("\"{}\"", etag(name, content))),
        ("X-Repo-Commit".to_owned(), state.commit.clone()),
        ("Content-Range".to_owned(), format!("bytes {from}-{}/{}", to.saturating_sub(1), content.len())),
    ];
    if let Some((header, value)) = &state.header {
        headers.iter_mut().filter(|(name, _)| name == header).for_each(|(_, old)| value.clone_into(old));
    }
    if !state.ranges && from > 0 {
        state.ranges = true;
        return respond(stream, "200 OK", &headers, content, None);
    }
    let part = content.get(from..to).unwrap_or_default();
    respond(stream, "206 Partial Content", &headers, part, state.cut_after)
}

/// Parses `bytes=FROM-` or `bytes=FROM-TO`, clamped to a length.
fn range(text: Option<&str>, len: usize) -> (usize, usize) {
    let parts = text.and_then(|text| text.strip_prefix("bytes=")).and_then(|text| text.split_once('-'));
    let (from, to) = parts.unwrap_or_default();
    let (from, to) = (from.parse().unwrap_or(0), to.parse().map_or(len, |last: usize| last + 1));
    (from, to.min(len))
}

/// Writes a response with at most the first `cut_after` bytes of the body.
fn respond(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(String, String)],
    body: &[u8],
    cut_after: Option<usize>,
) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
    headers.iter().try_for_each(|(name, value)| write!(stream, "{name}: {value}\r\n"))?;
    write!(stream, "\r\n")?;
    stream.write_all(body.get(..cut_after.unwrap_or(body.len()).min(body.len())).unwrap_or_default())
}
