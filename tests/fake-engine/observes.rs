//! An observer that writes down what it is told.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Channel, FromObserver, ToObserver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Does what `FAKE_OBSERVER` says until it is told to stop, or the supervisor is gone.
pub(crate) fn observe(channel: &Channel) {
    let behaviour = super::behaviour("FAKE_OBSERVER");
    if behaviour == "absent" {
        return;
    }
    let name = format!("observer {}", std::process::id());
    let tell = |text: String| writeln!(std::io::stderr(), "{name}: {text}").unwrap_or_default();
    // A supervisor that is gone need not be told.
    let answer = |message| channel.send(&message, &[]).unwrap_or_default();
    let mut processes = HashMap::new();
    while let Ok((message, mut fds)) = channel.receive() {
        match message {
            ToObserver::Start(start) => {
                tell(format!("starts with {} descriptors", fds.len()));
                assert!(start.cursors > 0);
                channel
                    .send(&FromObserver::Ready, &[])
                    .expect("the supervisor listens");
            }
            ToObserver::Pool(pool) => tell(format!("pool {}", pool.name)),
            ToObserver::Engine { php, .. } => tell(format!("engine {}", php.version)),
            ToObserver::WorkerStarted(view) => {
                tell(format!("worker {} with {} descriptors", view.pid, fds.len()));
                processes.insert(view.worker, fds.swap_remove(1));
            }
            ToObserver::WorkerGone { worker, ended, .. } => {
                processes.remove(&worker);
                tell(format!("worker {worker} gone {ended:?}"));
                answer(FromObserver::Buried { worker });
            }
            ToObserver::Line(line) => tell(format!("a line of worker {}", line.worker)),
            // Said by the supervisor, who has a log for that.
            ToObserver::Logged(_) => {}
            ToObserver::Tail { .. } => tell("a reader".to_owned()),
            // Once a second, and of no matter here.
            ToObserver::Figures(_) => {}
            ToObserver::TelemetryFile => tell("a file for telemetry".to_owned()),
            ToObserver::PoolGone { pool } => tell(format!("pool {pool} is gone")),
            ToObserver::LastLook { worker, doom } => {
                let state = if lives(&processes, worker) {
                    "lives"
                } else {
                    "is gone"
                };
                tell(format!(
                    "last look for {doom:?} at worker {worker}, which {state}"
                ));
                match behaviour.as_str() {
                    "silent" => {}
                    "wakes" => answer(FromObserver::Looked {
                        worker,
                        crashed: true,
                    }),
                    _ => answer(FromObserver::Looked {
                        worker,
                        crashed: false,
                    }),
                }
            }
            ToObserver::Saturated { pool } => tell(format!("pool {pool} is saturated")),
            ToObserver::SlowLog { pool } => tell(format!("slow log of pool {pool}")),
            ToObserver::Stop { .. } => return tell("stops".into()),
        }
    }
}

fn lives(processes: &HashMap<WorkerId, OwnedFd>, worker: WorkerId) -> bool {
    let process = processes.get(&worker).expect("it was introduced");
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Readable once it has ended (pidfd_open(2)).
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)).expect("polls") == 0
}
