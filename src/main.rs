//! The `glasspool` program: reads its arguments, calls the library, and turns what went
//! wrong into one message and an exit status.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

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
            // Help and version are no mistakes. Where standard output is gone, so is the reader.
            refused.print().unwrap_or_default();
            return if refused.use_stderr() {
                ExitCode::from(cli::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let say = |text: &str| writeln!(std::io::stdout(), "{text}").unwrap_or_default();
    match cli::run(call, say) {
        Ok(code) => code,
        Err(failure) => {
            failure.log.fatal(format_args!("{:#}", failure.error));
            ExitCode::from(failure.code)
        }
    }
}
