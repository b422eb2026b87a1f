//! `glasspool trace` and a running pool.

use super::*;

#[test]
fn a_rule_is_raised_for_a_time_listed_and_cleared() {
    let Some(stand) = stand("[trace]\nsampler = \"always_off\"\n", &[]) else {
        return;
    };
    assert!(!stand.is_sampled("/checkout/pay"));
    let list = |stand: &Stand| {
        let told = stand.trace(&["--list"]);
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(list(&stand), "no rules are raised");
    let raised = stand.trace(&["--path", "/checkout*", "--for", "10m", "--pool", "www"]);
    assert!(raised.status.success(), "{raised:?}");
    assert!(stand.is_sampled("/checkout/pay") && !stand.is_sampled("/other"));
    assert!(
        list(&stand).starts_with("/checkout*, pool www, ratio 1, for 9m 5"),
        "{}",
        list(&stand)
    );
    // New workers read the same page.
    for worker in stand.supervised.children(Some("pool")) {
        crate::harness::kill(worker, rustix::process::Signal::TERM);
    }
    let until = Instant::now() + PATIENCE;
    let script = stand.supervised.path("hello.php").display().to_string();
    let params = stand.params(&script, "/checkout/pay", &[]);
    while !ask(&stand.supervised.path("socket"), &params).is_ok_and(|seen| seen.ends_with(['1', '3'])) {
        assert!(Instant::now() < until, "new workers do not sample");
    }
    let ended = stand.trace(&["--clear"]);
    assert!(ended.status.success(), "{ended:?}");
    assert!(!stand.is_sampled("/checkout/pay"));
    assert_eq!(list(&stand), "no rules are raised");
    // It ends by itself.
    assert!(stand.trace(&["--path", "/brief", "--for", "1s"]).status.success());
    let until = Instant::now() + PATIENCE;
    while stand.is_sampled("/brief") {
        assert!(Instant::now() < until, "it does not end");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(list(&stand), "no rules are raised");
    for (arguments, expected) in [
        (
            &["--path", "/a", "--for", "1m", "--pool", "shop"][..],
            "there is no pool \"shop\" (known: www)",
        ),
        (
            &["--path", "a b", "--for", "1m"],
            "a path pattern starts with / or *",
        ),
        (&["--path", "/a"], "--for"),
        (&["--list", "--clear"], "cannot be used with"),
        (&["--for", "2d"], "a whole number with s, m or h is needed"),
    ] {
        let refused = stand.trace(arguments);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && why.contains(expected),
            "{arguments:?}: {why}"
        );
    }
}
