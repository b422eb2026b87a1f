//! `glasspool check`: the configuration, and what would run with it, for people.

use std::process::ExitCode;

use glasspool_abi::Pid;
use glasspool_waits::{Rung, Unavailable};

use super::Failure;
use super::flags::Flags;
use super::load::{fpm_conf, load};
use crate::config::{Ebpf, EbpfMode};
use crate::supervisor;

pub(super) fn check(flags: &Flags, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let settings = load(flags).map_err(Failure::config)?;
    for notice in &settings.notices {
        say(&notice.text);
    }
    let host = supervisor::choose(settings.overlay.php.binary.as_deref()).map_err(Failure::config)?;
    say(&format!(
        "PHP: {} ({}), hosting {}",
        host.binary.display(),
        host.build,
        host.object.display()
    ));
    for pool in &settings.pools {
        let slow = match pool.slow_after {
            Some(after) => format!("requests slower than {after:?} are explained"),
            None => "no request is looked into".to_owned(),
        };
        say(&format!(
            "[pool {}] {} workers on {}; {slow}",
            pool.name,
            pool.max_children,
            supervisor::listen_name(&pool.listen)
        ));
    }
    let (told, wrong) = supervisor::describe_telemetry(&settings).map_err(Failure::config)?;
    told.iter().for_each(|line| say(line));
    for warning in &wrong {
        say(&format!("WARNING: {warning}"));
    }
    say(&kernel_programs(&settings.overlay.ebpf));
    let path = fpm_conf(flags);
    say(&format!(
        "configuration file {} test is successful",
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Whether the programs that tell where time goes can be had, found out by loading them: they
/// are gone again when this returns. With the rights of whoever checks, not of the service.
fn kernel_programs(ebpf: &Ebpf) -> String {
    if ebpf.mode == EbpfMode::Off {
        return programs_line(ebpf.mode, Ok(()), Rung::Nothing);
    }
    let own = Pid(rustix::process::getpid().as_raw_nonzero().get());
    let loaded = glasspool_waits::load(&glasspool_waits::Settings {
        wait_threshold: ebpf.wait_threshold,
        frames: ebpf.frames,
        system_calls: ebpf.system_calls,
        ..glasspool_waits::Settings::default()
    });
    programs_line(ebpf.mode, loaded.map(drop), Rung::without_programs(own))
}

/// `without` is what is left without them.
fn programs_line(mode: EbpfMode, loaded: Result<(), Unavailable>, without: Rung) -> String {
    let mode = match mode {
        EbpfMode::Off => return "ebpf: off, as the configuration says".to_owned(),
        EbpfMode::Auto => "auto",
        EbpfMode::Required => "required",
    };
    match loaded {
        Ok(()) => format!(
            "ebpf: {mode}, and the kernel programs can be loaded ({}): where spans are made, they tell where requests' time \
             went",
            Rung::Full
        ),
        Err(why) if mode == "required" => format!(
            "ebpf: {mode}, and the kernel programs cannot be loaded as this user ({without}): where spans are made, a start \
             is refused: {why}"
        ),
        Err(why) => format!(
            "ebpf: {mode}, and the kernel programs cannot be loaded as this user ({without}): spans tell how long requests \
             waited for a CPU, and not for what else: {why}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rung_its_reason_and_what_would_help_are_told() {
        let refused = || {
            Err(Unavailable::Capabilities {
                what: "load a program",
                missing: "CAP_BPF and CAP_PERFMON are".to_owned(),
            })
        };
        let off = programs_line(EbpfMode::Off, Ok(()), Rung::Reader);
        assert_eq!(off, "ebpf: off, as the configuration says");
        let on = programs_line(EbpfMode::Auto, Ok(()), Rung::Reader);
        assert!(on.starts_with("ebpf: auto, ") && on.contains("(full)"), "{on}");
        for (mode, expected) in [
            (EbpfMode::Auto, ["ebpf: auto, ", "and not for what else"]),
            (EbpfMode::Required, ["ebpf: required, ", "a start is refused"]),
        ] {
            let line = programs_line(mode, refused(), Rung::SelfReport);
            let always = [
                "(self-report)",
                "CAP_BPF and CAP_PERFMON are missing",
                "AmbientCapabilities=",
            ];
            for text in expected.into_iter().chain(always) {
                assert!(line.contains(text), "{line} lacks {text}");
            }
        }
    }
}
