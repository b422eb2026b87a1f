//! The `glasspool` program: reads its arguments, calls the library, and turns what went
//! wrong into one message and an exit status.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;

use glasspool::cli;

/// The observer makes and drops many small strings for each span; when there were some
/// sixty of them, this allocator did that in two thirds of the time of libc's.
///
/// Built without huge pages (`no_thp`): with them, whatever is touched first takes 2 MiB,
/// which made up 10 of the supervisor's 14 MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let call = match cli::understand(std::env::args_os().collect()) {
        Ok(call) => call,
        Err(refused) => {
            // Help and version are no mistakes.
            let printed = refused.print();
            return if refused.use_stderr() {
                ExitCode::from(cli::USAGE)
            } else {
                written(printed, ExitCode::SUCCESS)
            };
        }
    };
    let said = Rc::new(Cell::new(Ok(())));
    let outcome = Rc::clone(&said);
    let say = move |text: &str| {
        let before = said.replace(Ok(()));
        said.set(before.and_then(|()| writeln!(io::stdout(), "{text}")));
    };
    match cli::run(call, say) {
        Ok(code) => written(outcome.replace(Ok(())), code),
        Err(failure) => {
            failure.log.fatal(format_args!("{:#}", failure.error));
            ExitCode::from(failure.code)
        }
    }
}

/// The exit status, where everything was written: of a reader that has gone, as of `| head`, that
/// is as good as true.
fn written(outcome: io::Result<()>, code: ExitCode) -> ExitCode {
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            // Where standard error is gone, so is whoever would read it.
            writeln!(io::stderr(), "glasspool: cannot write to standard output: {e}").unwrap_or_default();
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => code,
    }
}
