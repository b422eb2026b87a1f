//! Roles that the supervisor starts this program in; not for people.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::front::{self, FrontOptions};
use crate::{loader, observer};

/// What the front serves; its listening socket is standard input.
#[derive(Debug, Args)]
pub struct FrontArguments {
    /// The site's folder
    #[arg(long)]
    root: PathBuf,
    /// The pool's socket
    #[arg(long)]
    fastcgi: PathBuf,
}

pub(super) fn observer() -> ExitCode {
    take_name();
    observer::main()
}

pub(super) fn loader() -> ExitCode {
    take_name();
    loader::main()
}

pub(super) fn front(arguments: FrontArguments) -> Result<ExitCode, Failure> {
    take_name();
    run_front(arguments).map_err(Failure::config)?;
    Ok(ExitCode::SUCCESS)
}

fn run_front(arguments: FrontArguments) -> anyhow::Result<()> {
    // It has no channel whose closing would tell it that the supervisor is gone.
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)
        .context("cannot ask to be told of the supervisor's end")?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
    let listener = rustix::stdio::stdin()
        .try_clone_to_owned()
        .context("cannot take over the HTTP socket")?;
    let FrontArguments { root, fastcgi } = arguments;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let shutdown = async move {
            // A closed stream also means that nothing more will come.
            let _received = terminate.recv().await;
        };
        front::run(
            TcpListener::from(listener),
            FrontOptions { root, fastcgi },
            shutdown,
        )
        .await?;
        Ok(())
    })
}

/// The program was started as `/proc/self/exe`, which would show as `exe` in top(1).
fn take_name() {
    // Only what is shown depends on it.
    nix::sys::prctl::set_name(c"glasspool").unwrap_or_default();
}
