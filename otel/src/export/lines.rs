//! OTLP/JSON, one export request a line: to a file, or to standard output. What collectors
//! read back (`otlpjsonfile`), and what a pipe can carry where there is no collector.
//!
//! Writing to a disk, or to a pipe that nobody reads, may block for any time. So a thread
//! writes and nobody waits for it: a batch that is not written in the exporter's time is
//! lost and counted, as are those that fail on a full disk.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::lane::{Failure, Sent, Sink};
use super::otlp::Messages;

/// Lines that wait for the thread: one for each lane (spans, spans of waits, log records,
/// metrics), which sends one batch at a time. All do so when the pipeline ends.
const WAITING: usize = 4;

/// Where lines go. Clones write to the same place, and no line is inside another.
#[derive(Debug, Clone)]
pub struct Lines {
    jobs: SyncSender<Job>,
    next: Arc<Mutex<Option<File>>>,
}

#[derive(Debug)]
struct Job {
    line: Vec<u8>,
    /// Dropped by one that does not wait any longer.
    done: oneshot::Sender<io::Result<()>>,
}

impl Lines {
    /// Starts the thread that writes. Without a file everything fails until there is one.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(file: Option<File>) -> io::Result<Lines> {
        let (jobs, waiting) = sync_channel(WAITING);
        let next = Arc::new(Mutex::new(file));
        let given = Arc::clone(&next);
        std::thread::Builder::new()
            .name("otlp-lines".to_owned())
            .spawn(move || write_all(&waiting, &given))?;
        Ok(Lines { jobs, next })
    }

    /// The next lines go to this file, opened for appending. A write that hangs stays with
    /// the old one.
    pub fn replace(&self, file: File) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    async fn write(&self, line: Vec<u8>) -> Result<(), Failure> {
        let (done, written) = oneshot::channel();
        self.jobs.try_send(Job { line, done }).map_err(|error| {
            Failure::new(match error {
                TrySendError::Full(_) => "the writes before have not ended".to_owned(),
                TrySendError::Disconnected(_) => "the thread that writes has ended".to_owned(),
            })
        })?;
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(format!("cannot write: {error}"))),
            Err(_) => Err(Failure::new("the thread that writes has ended".to_owned())),
        }
    }
}

/// The thread: ends when all handles are gone.
fn write_all(waiting: &Receiver<Job>, next: &Mutex<Option<File>>) {
    let mut current: Option<File> = None;
    // The last line in the file is not whole.
    let mut torn = false;
    while let Ok(Job { mut line, done }) = waiting.recv() {
        // Its batch has been given up, and counted.
        if done.is_closed() {
            continue;
        }
        if let Some(file) = next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            (current, torn) = (Some(file), false);
        }
        let result = match &mut current {
            None => Err(io::Error::other("the file could not be opened")),
            Some(file) => {
                if torn {
                    line.insert(0, b'\n');
                }
                let result = file.write_all(&line);
                // Not cut off: another observer may have written behind it.
                torn = result.is_err();
                result
            }
        };
        // Who does not wait any longer has counted it as lost.
        let _waits = done.send(result).is_ok();
    }
}

/// Writes one signal as lines.
pub(crate) struct JsonLines<S> {
    signal: S,
    lines: Lines,
}

impl<S> JsonLines<S> {
    pub(crate) fn new(signal: S, lines: Lines) -> JsonLines<S> {
        JsonLines { signal, lines }
    }
}

impl<S: Messages> Sink<S::Item> for JsonLines<S> {
    async fn send(&self, batch: Vec<S::Item>) -> Result<Sent, Failure> {
        let request = self.signal.request(batch);
        let mut line = serde_json::to_vec(&request)
            .map_err(|error| Failure::new(format!("cannot be written as JSON: {error}")))?;
        line.push(b'\n');
        self.lines.write(line).await?;
        self.signal.taken();
        Ok(Sent::default())
    }
}

#[cfg(test)]
mod tests;
