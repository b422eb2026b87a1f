//! `glasspool reload`: asks the running supervisor for a reload, and waits for what
//! becomes of it. Unlike `kill -USR2` it can say that the reload failed.
//!
//! The request is the packet `reload`; the answer is lines of progress, one a packet, the
//! last of which is `ok` or `failed: REASON`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::Failure;
use super::supervisor::{Whom, connect, put, receive};

/// Lines of progress that are read at most.
const MAX_LINES: usize = 10_000;
/// Longest silence: PHP may compile a whole application before the new pools are ready,
/// and then a worker has to answer.
const PATIENCE: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
Examples:
  glasspool reload                                    of the supervisor that the pid file names
  glasspool reload -y /etc/php/8.2/fpm/php-fpm.conf
  glasspool reload 4711                               of the supervisor with that pid
Nothing changes unless PHP starts with the new configuration and a worker answers.
Exit status: 0 it is in force, 1 it is not (standard error says why), 64 wrong arguments.";

/// Which supervisor.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReloadArguments {
    #[command(flatten)]
    whom: Whom,
}

pub(super) fn reload(arguments: &ReloadArguments, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let pid = arguments.whom.find().map_err(Failure::ordinary)?;
    ask(pid, say).map_err(Failure::ordinary)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks, and passes on the lines of progress.
fn ask(pid: i32, say: impl Fn(&str)) -> anyhow::Result<()> {
    let socket = connect(pid)?;
    put(&socket, b"reload")?;
    let mut last = None;
    for _ in 0..MAX_LINES {
        let Some(line) = receive(&socket, PATIENCE)
            .with_context(|| format!("process {pid} has not finished the reload"))?
        else {
            break;
        };
        if let Some(before) = last.replace(line) {
            say(&before);
        }
    }
    match last.as_deref() {
        Some("ok") => Ok(()),
        Some(answer) => match answer.strip_prefix("failed: ") {
            Some(reason) => bail!("the reload failed and everything goes on as it was: {reason}"),
            None => bail!("process {pid} stopped answering after: {answer}"),
        },
        None => bail!("process {pid} gave no answer"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

    use rustix::net::RecvFlags;

    use super::*;

    /// Answers one question under this process's own pid with these packets.
    fn answering(packets: &[&str]) -> (anyhow::Result<()>, Vec<String>) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let listener = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None).expect("makes");
        let name = format!("glasspool-ctl-{own}");
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("short");
        rustix::net::bind(&listener, &address).expect("binds");
        rustix::net::listen(&listener, 1).expect("listens");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let peer = rustix::net::accept(&listener).expect("accepts");
                let mut question = [0; 16];
                let (count, _) =
                    rustix::net::recv(&peer, &mut question[..], RecvFlags::empty()).expect("receives");
                assert_eq!(&question[..count], b"reload");
                for packet in packets {
                    rustix::net::send(&peer, packet.as_bytes(), SendFlags::NOSIGNAL).expect("sends");
                }
            });
            let said = RefCell::new(Vec::new());
            let asked = ask(own, |line| said.borrow_mut().push(line.to_owned()));
            (asked, said.into_inner())
        })
    }

    #[test]
    fn the_last_line_decides_and_those_before_are_progress() {
        let (asked, said) = answering(&["checking\n", "starting PHP", "ok"]);
        asked.expect("succeeds");
        assert_eq!(said, ["checking", "starting PHP"]);
        for (packets, expected) in [
            (&["failed: no such user"][..], "goes on as it was: no such user"),
            (&["checking"], "stopped answering after: checking"),
            (&[], "gave no answer"),
        ] {
            let error = answering(packets).0.expect_err("is no success");
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}
