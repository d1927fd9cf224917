//! A service that embeds: many callers, one shared model, a session for each worker.
//!
//! `cargo run --release -p rachis --example service -- [MODEL] [WORKERS] [POOL] [SECONDS]`
//!
//! Callers send token ids of different lengths and wait; one that is too long is refused. A worker takes what waits,
//! up to a number of requests and a budget of tokens, and runs it as one ragged batch: nothing is padded, and a
//! request's answer has the same bits in whatever company it ran. Each request has a deadline. One that is late
//! before it is begun is answered at once; a batch of which all are late ends between two layers. With POOL above 1
//! every worker hands a thread pool of its own to its calls.
//!
//! MODEL is a directory or a handle of a BERT encoder; without one, a model of MiniLM's size has random weights.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rachis::kernels::Ctx;
use rachis::{BertBackbone, BertConfig, BertInputs, Pooling, RequestError, Session, Tokens, normalize};

/// The most tokens of a batch: enough to use the processor well, few enough that nobody waits long.
const BUDGET: usize = 256;
/// The most requests of a batch.
const MOST: usize = 8;
/// The longest request; longer ones are refused.
const LONGEST: usize = 128;
const CALLERS: usize = 16;
const PATIENCE: Duration = Duration::from_millis(500);

struct Request {
    ids: Vec<u32>,
    deadline: Instant,
    reply: Sender<Result<Vec<f32>, rachis::Error>>,
}

/// What waits, and whether there will be more.
#[derive(Default)]
struct Queue {
    waiting: Mutex<(VecDeque<Request>, bool)>,
    arrived: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Request>, bool)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, request: Request) {
        let length = request.ids.len();
        if length > LONGEST {
            let error = RequestError::SequenceLength { sequence: 0, found: length, max: LONGEST };
            let _ = request.reply.send(Err(error.into()));
            return;
        }
        self.lock().0.push_back(request);
        self.arrived.notify_one();
    }

    fn close(&self) {
        self.lock().1 = true;
        self.arrived.notify_all();
    }

    /// The next requests, at least one and at most `MOST`, of up to `BUDGET` tokens together; none once the queue is
    /// closed and empty.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.lock();
        while waiting.0.is_empty() && !waiting.1 {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(request) = waiting.0.front() {
            tokens += request.ids.len();
            if !batch.is_empty() && (batch.len() == MOST || tokens > BUDGET) {
                break;
            }
            batch.extend(waiting.0.pop_front());
        }
        batch
    }
}

/// Serves until the queue is closed.
fn work(model: &BertBackbone, queue: &Queue, pool: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let pool = match pool {
        0 | 1 => None,
        threads => Some(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?),
    };
    let ctx = Ctx::detect().with_pool(pool.as_ref());
    let mut session = Session::new(ctx);
    // No batch has more or longer requests: none makes the session allocate after this.
    session.reserve(model, MOST, LONGEST)?;
    loop {
        let batch = queue.take();
        if batch.is_empty() {
            return Ok(());
        }
        let (batch, late): (Vec<_>, Vec<_>) = {
            let now = Instant::now();
            batch.into_iter().partition(|request| request.deadline > now)
        };
        for request in late {
            // A failed reply is ignored, here and below: its caller may have gone.
            let _ = request.reply.send(Err(rachis::Error::DeadlineExceeded));
        }
        session.set_deadline(batch.iter().map(|request| request.deadline).max());
        answer(model, &mut session, batch);
    }
}

/// Runs a batch and replies to each of its requests.
fn answer(model: &BertBackbone, session: &mut Session<'_>, mut batch: Vec<Request>) {
    while !batch.is_empty() {
        let ids: Vec<u32> = batch.iter().flat_map(|request| request.ids.iter().copied()).collect();
        let lengths: Vec<usize> = batch.iter().map(|request| request.ids.len()).collect();
        let tokens = Tokens::ragged(&ids, &lengths);
        let width = model.config().hidden_dim;
        let mut vectors = vec![0.0; batch.len() * width];
        let result = model
            .forward(session, BertInputs { tokens, segment_ids: None })
            .and_then(|output| Pooling::Mean.pool(output.sequence_output, &mut vectors));
        match result {
            Ok(()) => {
                normalize(&mut vectors, width);
                for (request, vector) in batch.drain(..).zip(vectors.chunks_exact(width)) {
                    let _ = request.reply.send(Ok(vector.to_vec()));
                }
            }
            Err(error) if batch.len() == 1 || matches!(error, rachis::Error::DeadlineExceeded) => {
                let last = batch.pop();
                for request in batch.drain(..) {
                    let _ = request.reply.send(Err(rachis::Error::DeadlineExceeded));
                }
                last.map(|request| request.reply.send(Err(error)));
            }
            Err(_) => {
                // One of them does not fit the model: each by itself, so that it alone is refused.
                for request in batch.drain(..) {
                    answer(model, session, vec![request]);
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (workers, pool, seconds) = (number(1, 2)?.max(1), number(2, 1)?, number(3, 5)?);
    let model = match arguments.first() {
        Some(name) => BertBackbone::from_preset(name)?,
        None => {
            let mut config = BertConfig::default();
            (config.num_layers, config.hidden_dim, config.intermediate_dim) = (6, 384, 1536);
            BertBackbone::random(config, 0)?
        }
    };
    let queue = Queue::default();
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let mut latencies: Vec<Duration> = Vec::new();
    let (mut refused, mut failed) = (0, None);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(&model, &queue, pool))).collect();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let (model, queue) = (&model, &queue);
                    move || call(model, queue, caller, end)
                })
            })
            .collect();
        for caller in callers {
            if let Ok((times, late)) = caller.join() {
                latencies.extend(times);
                refused += late;
            }
        }
        queue.close();
        for worker in workers {
            failed = worker.join().ok().and_then(Result::err).or(failed.take());
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    latencies.sort_unstable();
    let at = |part: f64| {
        let at = (latencies.len().saturating_sub(1) as f64 * part) as usize;
        latencies.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    println!("{workers} workers, {pool} threads each, {CALLERS} callers, up to {LONGEST} tokens a request");
    println!(
        "{} answers, {:.0} a second; {refused} late",
        latencies.len(),
        latencies.len() as f64 / seconds as f64
    );
    println!("p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(0.5), at(0.99), at(1.0));
    Ok(())
}

/// One caller: sends a request, waits for the answer, pauses, and so on. The times, and how many answers were late.
fn call(model: &BertBackbone, queue: &Queue, caller: usize, end: Instant) -> (Vec<Duration>, usize) {
    let (mut times, mut late) = (Vec::new(), 0);
    let mut state = caller as u32 + 1;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    while Instant::now() < end {
        let length = 4 + random(LONGEST - 3);
        let ids = (0..length).map(|_| random(model.config().vocabulary_size) as u32).collect();
        let (start, (reply, answer)) = (Instant::now(), channel());
        queue.push(Request { ids, deadline: start + PATIENCE, reply });
        match answer.recv_timeout(4 * PATIENCE) {
            Ok(Ok(_)) => times.push(start.elapsed()),
            Ok(Err(_)) | Err(_) => late += 1,
        }
        thread::sleep(Duration::from_millis(random(40) as u64));
    }
    (times, late)
}
