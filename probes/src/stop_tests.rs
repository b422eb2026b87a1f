use std::io::Read;
use std::process::{Command, Stdio};

use super::*;

fn own(pid: u32) -> Pid {
    Pid(pid.try_into().unwrap())
}

#[test]
fn a_stop_is_told_from_a_signal() {
    assert_eq!(
        Release::after(0x8005),
        Release::Detach(None),
        "the trap that was asked for"
    );
    assert_eq!(Release::after(0x8013), Release::Detach(None), "a group stop");
    assert_eq!(Release::after(15), Release::Detach(Some(Signal::SIGTERM)));
    assert_eq!(Release::after(36), Release::EndOfThread);
}

#[test]
fn a_sleeping_process_is_not_held() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = own(child.id());
    while process::state(pid) != Some(RunState::Sleeping) {
        thread::yield_now();
    }
    let held = with_stopped(pid, Duration::from_secs(1), |_| ());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        matches!(
            held,
            Err(StopError::NotRunning {
                state: RunState::Sleeping,
                ..
            })
        ),
        "{held:?}"
    );
}

#[test]
fn a_process_that_has_exited_is_gone_and_still_its_parents_to_reap() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = own(child.id());
    while process::state(pid) != Some(RunState::Dead) {
        thread::yield_now();
    }
    let held = with_stopped(pid, Duration::from_secs(1), |_| ());
    assert!(matches!(held, Err(StopError::Gone { .. })), "{held:?}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_target_goes_on_after_a_panic_while_it_is_held() {
    let mut child = Command::new("sh")
        .args(["-c", "echo; while :; do :; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = own(child.id());
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    while process::state(pid) != Some(RunState::Running) {
        thread::yield_now();
    }
    let panic = std::panic::catch_unwind(|| {
        with_stopped(pid, Duration::from_secs(5), |_| panic!("on purpose")).map(|((), _)| ())
    });
    let tracer = process::tracer(pid);
    let again = with_stopped(pid, Duration::from_secs(5), |registers| {
        (
            registers.is_some(),
            process::state(pid),
            process::tracer(pid).is_some(),
        )
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(panic.is_err());
    assert_eq!(tracer, None);
    let (seen, _) = again.unwrap();
    assert_eq!(seen, (true, Some(RunState::Stopped), true));
}
