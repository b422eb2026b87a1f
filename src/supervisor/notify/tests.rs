//! A service manager's socket, and what comes out of it.

use super::*;
use crate::config::LogLevel;

fn log() -> ErrorLog {
    ErrorLog::stderr(LogLevel::Alert)
}

fn notifier(variables: &[(&str, &OsStr)], interval: Option<Duration>, now: Instant) -> Notifier {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    Notifier::from_environment(variables, interval, now, &log())
}

fn received(socket: &UnixDatagram) -> Option<String> {
    socket.set_nonblocking(true).expect("sets");
    let mut buffer = [0; 4096];
    match socket.recv(&mut buffer) {
        Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_life_is_told_in_php_fpms_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("binds");
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut notifier = notifier(&[(SOCKET, path.as_os_str())], Some(second * 10), start);
    notifier.ready(start, &log());
    let ready = format!(
        "READY=1\nSTATUS=Ready to handle connections\nMAINPID={}",
        std::process::id()
    );
    assert_eq!(received(&manager), Some(ready.clone()));
    assert_eq!(notifier.due(), Some(start + second * 10));
    notifier.beat(start + second * 9, || panic!("it is not due"), &log());
    let figures = || Figures {
        active: 1,
        idle: 2,
        requests: 25,
        slow: 3,
    };
    notifier.beat(start + second * 10, figures, &log());
    let status = "Processes active: 1, idle: 2, Requests: 25, slow: 3, Traffic: 2.50req/sec";
    assert_eq!(received(&manager), Some(format!("READY=1\nSTATUS={status}")));
    notifier.reloading(&log());
    let text = received(&manager).expect("told");
    assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{text}");
    // Nothing must say that we are ready before it is so.
    notifier.beat(start + second * 20, Figures::default, &log());
    assert!(received(&manager).is_none_or(|text| !text.contains("READY")));
    notifier.not_reloaded("line 1\nREADY=0", &log());
    let text = received(&manager).expect("told");
    let expected = "READY=1\nSTATUS=Reload failed, the old configuration stays: line 1 READY=0";
    assert_eq!(text, expected);
    notifier.beat(start + second * 30, Figures::default, &log());
    let text = received(&manager).expect("told");
    assert!(
        text.starts_with("READY=1\nSTATUS=Processes active: 0, "),
        "{text}"
    );
    assert!(
        text.ends_with("; the last reload failed: line 1 READY=0"),
        "{text}"
    );
    notifier.ready(start + second * 31, &log());
    assert_eq!(received(&manager), Some(ready));
    notifier.beat(start + second * 41, Figures::default, &log());
    assert!(received(&manager).is_some_and(|text| text.ends_with("req/sec")));
    notifier.stopping(&log());
    let text = received(&manager).expect("told");
    assert!(text.starts_with("STOPPING=1\n"), "{text}");
}

#[test]
fn an_abstract_name_works_and_nonsense_is_no_harm() {
    let name = format!("glasspool-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("short");
    let manager = UnixDatagram::bind_addr(&address).expect("binds");
    let now = Instant::now();
    let shown = OsString::from(format!("@{name}"));
    notifier(&[(SOCKET, &shown)], None, now).stopping(&log());
    assert!(received(&manager).is_some());
    for bad in ["", "relative", "/nowhere/at/all", "@", "vsock:2:1"] {
        let mut notifier = notifier(&[(SOCKET, OsStr::new(bad))], None, now);
        notifier.ready(now, &log());
        assert_eq!(notifier.due(), None);
    }
}

#[test]
fn a_manager_that_does_not_read_never_holds_us_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("binds");
    let now = Instant::now();
    let mut notifier = notifier(&[(SOCKET, path.as_os_str())], None, now);
    (0..10_000).for_each(|_| notifier.stopping(&log()));
    assert!(received(&manager).is_some());
}

#[test]
fn the_watchdog_sets_the_beat() {
    let text = |text: &'static str| Some(OsStr::new(text));
    let millis = |micros, pid| watchdog_interval(micros, pid, &[7, 6]).map(|time| time.as_millis());
    assert_eq!(millis(text("3000000"), None), Some(1500));
    assert_eq!(millis(text("3000000"), text("7")), Some(1500));
    assert_eq!(millis(text("3000000"), text("6")), Some(1500));
    assert_eq!(millis(text("3000000"), text("8")), None);
    assert_eq!(millis(text("3000000"), text("")), None);
    assert_eq!(millis(text("1"), None), Some(10));
    for bad in ["", "0", "-1", "x", "99999999999999999999999"] {
        assert_eq!(millis(text(bad), None), None, "{bad}");
    }
    assert_eq!(millis(None, None), None);
}

#[test]
fn seconds_have_three_digits() {
    for (millis, text) in [
        (1500, "1.5"),
        (30_000, "30"),
        (10, "0.01"),
        (123_456, "123"),
        (2_346, "2.35"),
    ] {
        assert_eq!(three_digits(Duration::from_millis(millis)), text);
    }
}
